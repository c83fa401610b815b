// Follows the fleet: frames from the server, and what hosts are.
//
// A frame is the exclusive or of the bytes that we have and the newest ones (jobs/web/frames.py). One GET a tick; nothing is
// held open, and whoever slept gets one frame for all that was missed.

export const fleet = {
  hosts: 0, planes: [], data: new Uint8Array(0), meta: null, summary: null, now: 0, epoch: -1, number: -1,
  names: [], traits: [], aggregates: [], reasons: new Map(), zones: [], sources: [], version: -1,
  offline: null, // since when the server does not answer, ms since 1970
  perf: { painted: 0, frames: [] },
  paint: 'vcpus_free', // the dimension that the frames have beside the base ones
  plane(name) { const place = this.planes[name] ?? this.meta.base.length; return this.data.subarray(place * this.hosts, (place + 1) * this.hosts); },
};
window.vacancy = fleet; // for tests and for the curious

const listeners = { frame: [], hosts: [], state: [] };
export const on = (event, call) => listeners[event].push(call);
const tell = (event) => listeners[event].forEach((call) => call());

export async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null));
  const answer = await fetch(`${path}?${query}`, { cache: 'no-store', signal: AbortSignal.timeout(20000) });
  if (!answer.ok && answer.headers.get('content-type')?.startsWith('application/json')) throw new Error((await answer.json()).error);
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  return answer;
}
export const getJson = async (path, parameters) => (await get(path, parameters)).json();

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function take(buffer, paint) {
  const began = performance.now(), view = new DataView(buffer), kind = view.getUint8(14);
  const jsonSize = view.getUint32(24, true), hosts = view.getUint32(8, true), body = 32 + jsonSize;
  const summary = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 32, jsonSize)));
  const change = await inflate(new Uint8Array(buffer, body)), inflated = performance.now();
  if (paint !== fleet.paint) return; // somebody has chosen another meanwhile
  if (kind === 0) {
    fleet.data = change;
  } else {
    // Four bytes at a time, which is quicker.
    const words = change.length >> 2, from = new Uint32Array(change.buffer, 0, words), to = new Uint32Array(fleet.data.buffer, 0, words);
    for (let i = 0; i < words; i++) to[i] ^= from[i];
    for (let i = words << 2; i < change.length; i++) fleet.data[i] ^= change[i];
  }
  const grown = fleet.hosts !== hosts || fleet.epoch !== view.getUint32(0, true);
  Object.assign(fleet, { hosts, summary, epoch: view.getUint32(0, true), number: view.getUint32(4, true), now: view.getFloat64(16, true) });
  if (grown) fleet.version = -1;
  const applied = performance.now();
  fleet.offline = null;
  tell('frame');
  const drawn = performance.now();
  fleet.perf.frames.push({ bytes: buffer.byteLength, inflate: inflated - began, work: drawn - inflated, apply: applied - inflated, at: drawn, kind });
  if (fleet.perf.frames.length > 600) fleet.perf.frames.shift();
  if (!fleet.perf.painted && hosts) fleet.perf.painted = drawn;
}

async function hosts() {
  const asked = fleet.version, epoch = fleet.epoch, found = await getJson('/api/hosts', asked < 0 ? {} : { epoch, since: asked });
  if (found.epoch !== fleet.epoch) return;
  const slots = found.slots ?? found.names.keys();
  let i = 0;
  if (found.slots === null) fleet.reasons.clear();
  for (const slot of slots) {
    fleet.names[slot] = found.names[i];
    fleet.traits[slot] = found.sets[found.traits[i]];
    fleet.aggregates[slot] = found.sets[found.aggregates[i]];
    fleet.reasons.delete(slot);
    i++;
  }
  for (const [slot, reason] of Object.entries(found.reasons)) fleet.reasons.set(+slot, reason);
  Object.assign(fleet, { zones: found.zones, sources: found.sources, version: found.version });
  tell('hosts');
}

let wake = () => {};
const pause = (ms) => new Promise((resolve) => { wake = resolve; setTimeout(resolve, ms); });

/** Chooses what the frames have: the next one, which comes at once, is a whole one. */
export function choose(paint) {
  if (paint === fleet.paint) return;
  fleet.paint = paint;
  fleet.number = -1;
  wake();
}
const seen = () => !document.hidden || new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));

export async function follow() {
  let failed = 0;
  for (;;) {
    let wait = 1000;
    const paint = fleet.paint;
    try {
      if (!fleet.meta) {
        fleet.meta = await getJson('/api/meta');
        fleet.planes = Object.fromEntries(fleet.meta.base.map((name, place) => [name, place]));
      }
      const answer = await get('/api/frame', { epoch: fleet.epoch, since: fleet.number, paint });
      wait = +answer.headers.get('x-next') + 30;
      if (answer.status === 200) await take(await answer.arrayBuffer(), paint);
      failed = 0;
      if (fleet.hosts && fleet.summary.version !== fleet.version) await hosts();
    } catch (error) {
      // A fault of the page itself must be seen, too.
      if (!(error instanceof TypeError && /fetch|network/i.test(error.message))) console.warn(error);
      fleet.offline ??= Date.now();
      wait = Math.min(5000, 250 * 2 ** failed++) * (0.75 + Math.random() / 2);
      tell('state');
    }
    await pause(paint === fleet.paint ? Math.max(50, wait) : 0);
    await seen();
  }
}
