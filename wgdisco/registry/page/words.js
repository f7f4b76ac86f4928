// What things are called, and how figures are written.

/** Path words, best first. */
export const WORDS = ["lan", "direct", "relay", "punching", "stale", "idle"];

/** What to do, by reason, on the host that has it; as `wgdisco status -v` says it. */
export const REMEDIES = {
  "peer offline": "start wgdisco there, or connect that host to a network",
  "registry unreachable": "see that the registry runs and its UDP port is open (`wgdisco registry check`)",
  "no UDP answer": "see whether UDP gets out, here and there (`wgdisco netcheck`)",
  "both NATs port-dependent": "forward a UDP port to one of the two, or give both IPv6",
  "host firewall": "join again with --firewall auto, or print",
  clock: "set the clock of this host",
  revoked: "`wgdisco leave`, or ask for another invitation",
  version: "update wgdisco on the older of the two",
  "not yet tried": "send something there: a path is looked for when there is a packet",
};

const BEHAVIOURS = {
  eim: "endpoint-independent mapping",
  adm: "address-dependent mapping",
  apdm: "address-and-port-dependent mapping",
  eif: "endpoint-independent filtering",
  adf: "address-dependent filtering",
  apdf: "address-and-port-dependent filtering",
};

/** A span of time in seconds, roughly: `12 s`, `3 min`, `2 h`, `5 d`. */
export function span(seconds, round = Math.floor) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${round(whole / 60)} min`;
  if (whole <= 86400) return `${round(whole / 3600)} h`;
  return `${round(whole / 86400)} d`;
}

/** Bytes: `340 KiB`. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** Round trip: `3.2 ms`. */
export function roundTrip(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "";
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

/** A NAT profile `MAPPING/FILTERING/DELTA`, short as in a table and in full (RFC 4787). */
export function nat(profile) {
  if (!profile) return { short: "–", long: "not known" };
  const [mapping, filtering, delta] = profile.split("/");
  const told = [BEHAVIOURS[mapping] ?? "mapping not known", BEHAVIOURS[filtering] ?? "filtering not known"];
  if (delta && delta !== "-") told.push(`ports ${delta} apart`);
  return { short: [mapping, filtering].map((one) => (one === "-" ? "?" : one)).join(" / "), long: told.join(", ") };
}

/** `12,358`. */
export const figure = new Intl.NumberFormat("en").format;

/** `1 member`, `2 members`. */
export function count(number, one, many = `${one}s`) {
  return `${figure(number)} ${number === 1 ? one : many}`;
}
