/**
 * Fixed layouts as data. Each byte belongs to exactly one field or is named reserved, and the sum is
 * asserted when the module loads: a layout that doesn't add up can't be imported.
 */
export type FieldKind = "u8" | "u16" | "u24" | "u32" | "bytes";
/** Offset and kind; `bytes` also its length. */
export type Field = readonly [offset: number, kind: FieldKind, lengthBytes?: number];
export type Fields = Readonly<Record<string, Field>>;

export type Values<Layout extends Fields> = {
  -readonly [Name in keyof Layout]: Layout[Name][1] extends "bytes" ? Uint8Array : number;
};

export interface Layout<Shape extends Fields> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly fields: Shape;
  /** Reads at `offset`; undefined when fewer than `sizeBytes` bytes are there. Copies nothing but `bytes`. */
  decode(bytes: Uint8Array, offset?: number): Values<Shape> | undefined;
  /** Fields left out are zero. RangeError for a value that its field can't hold. */
  encode(values: Partial<Values<Shape>>): Uint8Array<ArrayBuffer>;
}

const widths = { u8: 1, u16: 2, u24: 3, u32: 4 } as const;

function widthOf(field: Field): number {
  return field[1] === "bytes" ? (field[2] ?? 0) : widths[field[1]];
}

export function defineLayout<const Shape extends Fields>(
  name: string,
  sizeBytes: number,
  fields: Shape,
  reserved: readonly (readonly [offset: number, lengthBytes: number])[],
): Layout<Shape> {
  const taken = new Uint8Array(sizeBytes);
  const take = (label: string, offset: number, length: number) => {
    for (let at = offset; at < offset + length; at++) {
      if (at >= sizeBytes || taken[at] !== 0)
        throw new Error(`${name}: ${label} overlaps at ${at}`);
      taken[at] = 1;
    }
  };
  for (const [label, field] of Object.entries(fields)) take(label, field[0], widthOf(field));
  for (const [offset, length] of reserved) take("reserved", offset, length);
  const gap = taken.indexOf(0);
  if (gap !== -1) throw new Error(`${name}: byte ${gap} belongs to no field`);

  return {
    name,
    sizeBytes,
    fields,
    decode(bytes, offset = 0) {
      if (offset < 0 || bytes.length - offset < sizeBytes) return undefined;
      const values: Record<string, number | Uint8Array> = {};
      for (const [label, field] of Object.entries(fields)) {
        const at = offset + field[0];
        values[label] =
          field[1] === "bytes"
            ? bytes.slice(at, at + widthOf(field))
            : readUnsigned(bytes, at, widths[field[1]]);
      }
      return values as Values<Shape>;
    },
    encode(values) {
      const bytes = new Uint8Array(sizeBytes);
      for (const [label, value] of Object.entries(values)) {
        const field = fields[label];
        const width = widthOf(field);
        if (typeof value === "number") {
          if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width)) {
            throw new RangeError(`${name}.${label}: ${value} does not fit`);
          }
          writeUnsigned(bytes, field[0], width, value);
        } else {
          const content = value as Uint8Array;
          if (content.length !== width) throw new RangeError(`${name}.${label}: ${width} bytes`);
          bytes.set(content, field[0]);
        }
      }
      return bytes;
    },
  };
}

/** Big-endian, at most 6 bytes. */
export function readUnsigned(bytes: Uint8Array, offset: number, width: number): number {
  let value = 0;
  for (let at = offset; at < offset + width; at++) value = value * 256 + bytes[at];
  return value;
}

export function writeUnsigned(
  bytes: Uint8Array,
  offset: number,
  width: number,
  value: number,
): void {
  let rest = value;
  for (let at = offset + width - 1; at >= offset; at--) {
    bytes[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}

/** Hot readers and writers: no loop, no allocation. Sequence numbers and tags are unsigned 32 bit. */
export function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

export function readU24(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2];
}

export function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function writeU24(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 16;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value;
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}
