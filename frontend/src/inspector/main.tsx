import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Inspector } from "./inspector";
import { Journal } from "./journal";

const journal = new Journal();

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <Inspector journal={journal} />
  </StrictMode>,
);
