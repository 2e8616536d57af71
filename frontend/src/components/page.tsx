import type { ReactNode } from "react";
import { type Config, isLocal, isOriginRefused } from "../config";

interface PageProps {
  /** undefined if the settings are not usable. */
  config?: Config;
  subtitle?: ReactNode;
  /** Shown at the right of the title. */
  aside?: ReactNode;
  /** Use the full width of the window instead of the width of a form. */
  isWide?: boolean;
  children: ReactNode;
}

export function Page({ config, subtitle, aside, isWide = false, children }: PageProps) {
  return (
    <div className="page" data-wide={isWide}>
      <header>
        <div>
          <h1>WebSocket echo</h1>
          <p className="subtitle">{subtitle}</p>
        </div>
        {aside}
      </header>
      <main>
        {config && isOriginRefused(config, location.origin) && <OriginNotice config={config} />}
        {children}
      </main>
    </div>
  );
}

function OriginNotice({ config }: { config: Config }) {
  return (
    <p className="banner">
      Connections from this page will be refused: <code>{location.origin}</code> is not among the deployment's allowed
      origins. Add it to the context <code>allowedOrigins</code> and{" "}
      {isLocal(config) ? (
        <>
          start <code>make up</code> again.
        </>
      ) : (
        "deploy again."
      )}
    </p>
  );
}
