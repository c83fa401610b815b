// Text for people: numbers, times, and names that others wrote.

// Characters that would hide or reorder what stands around them are shown as their escapes, as in the terminal.
const UNSAFE =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/gu;
const escaped = (code) => (code > 0xffff ? '\\U' + code.toString(16).padStart(8, '0') : '\\u' + code.toString(16).padStart(4, '0'));
export const clean = (text) => String(text ?? '').replace(UNSAFE, (c) => escaped(c.codePointAt(0)));

export const count = (x) => (x == null ? '–' : Math.round(x).toLocaleString('en'));
export const percent = (x) => (x == null ? 'not known' : `${(x * 100).toFixed(x < 0.0995 && x > 0 ? 1 : 0)}\u00a0%`);

/** From 10,240 of a unit on the next one. */
function size(x, unit) {
  if (x == null) return '–';
  while (Math.abs(x) >= 10240 && unit < 3) { x /= 1024; unit++; }
  return `${count(x)} ${['MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}
export const mebibytes = (x) => size(x, 0);
export const gibibytes = (x) => size(x, 1);
/** A number that people compare, not copy. */
export const about = (x) => (x >= 1e6 ? `${(x / 1e6).toFixed(2)} M` : count(x));

export function bytesPerSecond(x) {
  if (x == null) return 'not known';
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (x < 999.5) return `${x < 9.95 && unit !== 'B' ? x.toFixed(1) : Math.round(x)} ${unit}/s`;
    x /= 1000;
  }
  return `${x.toFixed(1)} TB/s`;
}

/** Seconds as s, min, h or days. */
export function duration(s) {
  if (s == null) return '–';
  if (s < 10) return `${Math.max(0, s).toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

export const clock = (s) => new Date(s * 1000).toLocaleTimeString('en-GB');

const NAMES = {
  vcpus_free: 'VCPUs', memory_mb_free: 'memory, promised', memory_mb_available: 'memory, measured', disk_gb_free: 'disk, promised',
  disk_gb_available: 'disk, measured', cpu_utilization: 'CPU utilisation', cpu_steal: 'CPU steal', cpu_pressure: 'CPU pressure',
  memory_pressure: 'memory pressure', io_pressure: 'I/O pressure', required: 'required traits', any_of: 'any-of traits',
  forbidden: 'forbidden traits', aggregates: 'aggregate', vcpus_unit: 'VCPUs, by unit', memory_mb_unit: 'memory, by unit',
  disk_gb_unit: 'disk, by unit', numa_cpus: 'CPUs of one NUMA cell', numa_memory_mb: 'memory of one NUMA cell',
  numa: 'all in one NUMA cell', pci: 'devices, all together', include: 'included hosts', avoid: 'avoided hosts',
};
const POOL = { free: 'disk, promised', available: 'disk, measured', unit: 'disk, by unit', elsewhere: 'in no aggregate of theirs', own_disk: 'hosts report disks of their own' };
/** A dimension that rules hosts out, in few words. */
export function dimension(name) {
  if (NAMES[name]) return NAMES[name];
  const pool = /^disk_pool_(\w+) (.*)/s.exec(name);
  if (pool) return `storage pool ${clean(pool[2])}: ${POOL[pool[1]] ?? pool[1].replace(/_/g, ' ')}`;
  if (/_(unit|allocated)$/.test(name)) return `${clean(name.replace(/_[a-z]+$/, ''))}, ${name.endsWith('t') ? 'by unit' : 'allocations not known'}`;
  if (name.endsWith('_unknown')) return `${dimension(name.slice(0, -8))}, not known`;
  if (name.startsWith('numa_pages_')) return `pages of ${name.slice(11)} KiB in one cell`;
  return clean(name);
}
