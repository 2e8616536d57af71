import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { StartError } from "./components/start-error";
import { cognitoAddress, loadConfig } from "./config";
import { configureSession, currentUser } from "./session";

const root = createRoot(document.getElementById("root") as HTMLElement);
let address = "";

/** Show the page once it is known who is signed in, so that the sign-in form does not flash. */
async function start() {
  const config = await loadConfig();
  address = cognitoAddress(config);
  configureSession(config);
  const user = await currentUser();
  root.render(
    <StrictMode>
      <App config={config} initialUser={user} />
    </StrictMode>,
  );
}

start().catch((error: unknown) => {
  root.render(
    <StrictMode>
      <StartError error={error} cognitoAddress={address} />
    </StrictMode>,
  );
});
