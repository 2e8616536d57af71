/** The page's route, as React state. */

import { useSyncExternalStore } from "react";
import { formatRoute, parseRoute, type Route } from "./route";

export function useRoute(): Route {
  return parseRoute(useSyncExternalStore(subscribe, () => location.hash));
}

/** Go to a route, and keep the current one in the browser's history. */
export function navigate(route: Route): void {
  location.hash = formatRoute(route);
}

/** Go to a route, and replace the current one in the browser's history. */
export function replaceRoute(route: Route): void {
  history.replaceState(null, "", formatRoute(route));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

function subscribe(listener: () => void): () => void {
  addEventListener("hashchange", listener);
  return () => removeEventListener("hashchange", listener);
}
