// From an entity in a document to what is known of it over all documents.

let areShown = false;

/** Whether the page has entities: what leads to one leads there. */
export function useEntityLinks(has) {
  areShown = has === true;
}

/** Where an entity of a shown document leads to; null: its message does not say which one it is. */
export function entityHref(entity) {
  return areShown && entity?.entity_id ? `#entities/${encodeURIComponent(entity.entity_id)}` : null;
}

/** Go to the entity that an element stands for, if it does and there is one. */
export function openEntity(target) {
  const href = entityHref(target.closest?.(".entity")?.entity);
  if (href) location.hash = href;
}
