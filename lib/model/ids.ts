/** Branded ids and units: a volume's id can't be passed where an image's is wanted. */
declare const brand: unique symbol;
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** RFC 9562 UUID, lower case, with dashes. */
export type VolumeId = Branded<string, "VolumeId">;
export type StoreId = Branded<string, "StoreId">;
export type PoolId = Branded<string, "PoolId">;
/** MAC address, lower case, colon separated. */
export type MacAddress = Branded<string, "MacAddress">;
/** iSCSI qualified name, RFC 7143 section 4.2.7. */
export type Iqn = Branded<string, "Iqn">;
/** Snapshot epoch of a family of volumes; compares along an ancestry. >= 1. */
export type Epoch = Branded<number, "Epoch">;
/** Writer generation: a store refuses I/O of an older one. >= 1. */
export type Generation = Branded<number, "Generation">;

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;
const iqnPattern = /^iqn\.\d{4}-\d{2}\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[^\s]{1,160})?$/;

/** Lower-cased UUID, or undefined if `text` isn't one. */
export function parseUuid(text: string): string | undefined {
  const lower = text.toLowerCase();
  return uuidPattern.test(lower) ? lower : undefined;
}

export function parseVolumeId(text: string): VolumeId | undefined {
  return parseUuid(text) as VolumeId | undefined;
}

/** Accepts `AA:BB:..`, `aa-bb-..` and `aabb..`; gives the canonical form. */
export function parseMacAddress(text: string): MacAddress | undefined {
  const bare = text.toLowerCase().replaceAll("-", ":");
  const spread = /^[0-9a-f]{12}$/.test(bare) ? bare.match(/../g)!.join(":") : bare;
  return macPattern.test(spread) ? (spread as MacAddress) : undefined;
}

/** An `iqn.` name of at most 223 bytes, lower-cased (RFC 7143 section 4.2.7.1). */
export function parseIqn(text: string): Iqn | undefined {
  const lower = text.toLowerCase();
  return lower.length <= 223 && iqnPattern.test(lower) ? (lower as Iqn) : undefined;
}
