// The colour of an entity type: always the same one, wherever it is seen. The classes are in page.css.

const FAMILIAR = {
  person: 0, user: 0, politician: 0, researcher: 0,
  organization: 1, organisation: 1, corporation: 1, process: 1, service: 1,
  location: 2, country: 2, host: 2,
  product: 3, "file-path": 3, "creative-work": 3,
  event: 4, "ip-address": 4, election: 4,
  date: 5, timestamp: 5,
  "error-code": 6,
};
const COLOURS = 12;

/** The class of a type's colour. */
export function colourOf(type) {
  const key = type.toLowerCase();
  if (Object.hasOwn(FAMILIAR, key)) return `hue-${FAMILIAR[key]}`;
  let hash = 2166136261;
  for (const char of key) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  return `hue-${7 + ((hash >>> 0) % (COLOURS - 7))}`;
}
