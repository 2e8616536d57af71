/** The page's route, as React state. */

import { useSyncExternalStore } from "react";
import { formatRoute, parseRoute, type Route } from "./route";

export function useRoute(): Route {
  return parseRoute(useSyncExternalStore(subscribe, () => location.hash));
}

/** Show something else; the browser's back button returns from it. */
export function navigate(route: Route): void {
  location.hash = formatRoute(route);
}

/** Show something else in place of what is shown. */
export function replaceRoute(route: Route): void {
  history.replaceState(null, "", formatRoute(route));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

function subscribe(listener: () => void): () => void {
  addEventListener("hashchange", listener);
  return () => removeEventListener("hashchange", listener);
}
