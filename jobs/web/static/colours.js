// What is painted, and in which colours. viridis where bright is free; a scale from calm to bright where much is bad.
// Out is never told by colour alone: those hosts lie on top, and the legend names and counts them.

const VIRIDIS = ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30', '#fde725'];
const LOAD = ['#20303f', '#33455c', '#4d6480', '#7b7f86', '#b08a6a', '#d98f45', '#f2a43a', '#ffd27a'];
const LOAD_LIGHT = ['#dfe6ec', '#b9c9d6', '#93a9bd', '#8d8f99', '#b08a6a', '#c9772c', '#b5560f', '#8a3200'];

const free = (label, name) => ({ label, low: 'none free', high: 'all free', free: true, name });
const load = (label, low, high, name, rare) => ({ label, low, high, name, rare });
/** Dimensions that can be painted, by their names in the frames. */
export const PAINTS = {
  vcpus_free: free('VCPUs free', 'VCPUs'),
  vcpus_free_min: free('VCPUs, least free in the window', 'VCPUs, least'),
  memory_mb_free: free('memory free, promised', 'memory, promised'),
  memory_mb_free_min: free('memory, least free in the window', 'memory, least'),
  memory_mb_available: free('memory available, measured', 'memory, measured'),
  disk_gb_free: free('disk free, promised', 'disk, promised'),
  disk_gb_available: free('disk available, measured', 'disk, measured'),
  cpu_utilization: load('CPU utilisation', 'idle', 'busy', 'CPU'),
  cpu_steal: load('CPU steal', 'none', 'all', 'steal', true),
  cpu_pressure: load('CPU pressure', 'none', 'all', 'CPU pressure', true),
  memory_pressure: load('memory pressure', 'none', 'all', 'memory pressure', true),
  io_pressure: load('I/O pressure', 'none', 'all', 'I/O pressure', true),
  claims: load('claims in flight', 'none', '15 and more', 'claims'),
  age: load('age', 'fresh', 'old', 'age'),
  drift: load('drift', 'agrees', 'drifts', 'drift'),
};
export const levelsOf = (paint) => ({ age: 10, drift: 2 })[paint] ?? 16;

/** Codes of hosts that have no level: 239 not known, 240 + state out. */
export const UNKNOWN = 239, OUT = 240, GONE = 6;
export const OUT_COLOURS = { 239: '#9aa0a8', 241: '#6f7682', 242: '#3f4650', 243: '#e0552b', 244: '#c2185b', 245: '#8c6bb1', 246: '#000000' };

const DIMENSIONS = {
  disabled: '#6f7682', 'no usage yet': '#3f4650', stale: '#e0552b', 'duplicate id': '#c2185b', 'clock ahead': '#8c6bb1',
  zone: '#8c6bb1', aggregates: '#a98bc9', include: '#7d7d9c', avoid: '#9d9db8',
  required: '#56b4e9', any_of: '#3b8fc2', forbidden: '#2f6f99',
  vcpus_free: '#0072b2', vcpus_unit: '#004c77', memory_mb_free: '#cc79a7', memory_mb_available: '#e6b3cd', memory_mb_unit: '#8f4f74',
  disk_gb_free: '#9a6324', disk_gb_available: '#c79a5b', disk_gb_unit: '#6b4318',
  cpu_utilization: '#009e73', cpu_steal: '#33b894', cpu_pressure: '#66ccb0', memory_pressure: '#007a5a', io_pressure: '#004d39',
  numa_cpus: '#b2b200', numa: '#8a8a00', pci: '#66a61e',
};
const OTHERS = ['#66a61e', '#e6ab02', '#7570b3', '#a6761d', '#1b9e77', '#e7298a'];
/** A dimension's colour: its own, whatever else is on the map. */
export function dimensionColour(name) {
  if (DIMENSIONS[name]) return DIMENSIONS[name];
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  return OTHERS[hash % OTHERS.length];
}
export const FITS = '#fde725';

const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
function ramp(stops, n) {
  return Array.from({ length: n }, (_, i) => {
    const x = n < 2 ? 0 : (i / (n - 1)) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(x)), a = hex(stops[k]), b = hex(stops[k + 1]);
    return a.map((v, j) => Math.round(v + (b[j] - v) * (x - k)));
  });
}

/** Colours by code, and dimmed ones at 256 + code; as pixels and for CSS. */
export function palette(paint, dimensions, light) {
  const back = light ? [247, 247, 245] : [16, 18, 22], pixels = new Uint32Array(512), css = [];
  const put = (code, colour) => {
    pixels[code] = pack(colour);
    pixels[256 + code] = pack(colour.map((v, i) => Math.round(v * 0.14 + back[i] * 0.86)));
    css[code] = `rgb(${colour.join(' ')})`;
  };
  if (paint === 'fits') {
    put(0, hex(FITS));
    dimensions.forEach((d, i) => put(i + 1, hex(dimensionColour(d.name))));
  } else {
    const stops = PAINTS[paint].free ? VIRIDIS : light ? LOAD_LIGHT : LOAD;
    ramp(stops, levelsOf(paint)).forEach((colour, code) => put(code, colour));
  }
  for (const [code, colour] of Object.entries(OUT_COLOURS)) put(+code, hex(colour));
  return { pixels, css, back: pack(back) };
}
