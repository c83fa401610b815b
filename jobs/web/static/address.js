// What the page shows, kept in its address, so that a link shows another person the same.
const parameters = new URLSearchParams(location.search);
export const DEFAULTS = { view: 'fleet', paint: 'vcpus_free', group: 'zone', only: '', host: '', find: '', sort: 'name', theme: '', request: '' };
export const shown = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, parameters.get(name) ?? value]));

export function address(change = {}) {
  const next = { ...shown, ...change };
  const query = new URLSearchParams(Object.entries(next).filter(([name, value]) => value !== DEFAULTS[name]));
  return query.size ? `/?${query}` : '/';
}

export function show(change) {
  Object.assign(shown, change);
  history.replaceState(null, '', address());
}
