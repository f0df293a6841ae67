/* Owns the modules that the first view does without: each is loaded when it is first asked for. Never retries by itself. */

const loaded = new Map(); // name → a promise of the module

/** Resolves to a module of this folder, or to null where it can't be had now; the next call then tries again. */
export async function later(name) {
  if (!loaded.has(name)) loaded.set(name, load(`/static/${name}.js`));
  const module = await loaded.get(name);
  if (!module) loaded.delete(name);
  return module;
}

/** A browser never tries again to import what it once couldn't: so ask first. */
async function load(address) {
  try {
    return (await fetch(address)).ok ? await import(address) : null;
  } catch {
    return null;
  }
}
