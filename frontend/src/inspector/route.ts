/** The page's route, which is the fragment of its URL. */

import type { ConnectionPage } from "./api";

export type Route =
  | { readonly page: "list"; readonly search: string }
  | { readonly page: "connection"; readonly id: string };

const CONNECTION = "#/connections/";

export function parseRoute(hash: string): Route {
  if (hash.startsWith(CONNECTION) && hash.length > CONNECTION.length) {
    return { page: "connection", id: decode(hash.slice(CONNECTION.length)) };
  }
  const query = hash.indexOf("?");
  return { page: "list", search: query < 0 ? "" : (new URLSearchParams(hash.slice(query)).get("search") ?? "") };
}

export function formatRoute(route: Route): string {
  if (route.page === "connection") {
    // Ids end with "=", which a fragment may contain.
    return CONNECTION + encodeURIComponent(route.id).replaceAll("%3D", "=");
  }
  return route.search === "" ? "#/" : `#/?${new URLSearchParams({ search: route.search })}`;
}

/** Return the id of the connection to open after a search: the one with exactly this id, or the only match. */
export function chooseConnection(search: string, { connections, total }: ConnectionPage): string | undefined {
  const exact = connections.find(({ id }) => id === search.trim());
  return (exact ?? (total === 1 ? connections[0] : undefined))?.id;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
