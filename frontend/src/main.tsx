import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { StartError } from "./components/start-error";
import { describeCognitoAddress, loadConfig } from "./config";
import { configureSession, fetchCurrentUser } from "./session";

const root = createRoot(document.getElementById("root") as HTMLElement);
let address = "";

/** Find out who is signed in before the first render, so that the sign-in form does not flash. */
async function start() {
  const config = await loadConfig();
  address = describeCognitoAddress(config);
  configureSession(config);
  const user = await fetchCurrentUser();
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
