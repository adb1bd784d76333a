/**
 * Reads one instruction with a REX2, VEX or EVEX prefix, as the encoding rules have it. Written from the
 * rules alone; it shares nothing with the processor's decoder.
 *
 * @module
 */

/** A memory operand: base and index are register numbers, −1 for none. */
export interface MemoryOperand {
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly displacement: bigint;
  /** Relative to the end of the instruction. */
  readonly ripRelative: boolean;
}

/** The parts of an instruction. */
export interface Parsed {
  readonly kind: "rex2" | "vex" | "evex";
  readonly map: number;
  readonly opcode: number;
  /** Mandatory or operand-size prefix: 0, 66h, F3h, F2h. */
  readonly pp: number;
  readonly wide: boolean;
  /** Operand size of instructions without a byte form. */
  readonly bits: 16 | 32 | 64;
  /** ModRM.reg with its extensions, and without them. */
  readonly reg: number;
  readonly group: number;
  /** Register in ModRM.rm or in the opcode; −1 if the operand is memory. */
  readonly rm: number;
  readonly memory: MemoryOperand | undefined;
  readonly v: number;
  readonly nd: boolean;
  readonly nf: boolean;
  readonly condition: number;
  /** OF SF ZF CF in bits 3:0. */
  readonly defaults: number;
  readonly immediate: bigint;
  readonly length: number;
}

const signed = (value: bigint, bits: number): bigint => BigInt.asIntN(bits, value);

/** Bytes of immediate, by map, opcode, operand size and ModRM.reg. */
function immediateBytes(
  kind: Parsed["kind"],
  map: number,
  opcode: number,
  bits: number,
  group: number,
): number {
  const z = bits === 16 ? 2 : 4;
  if (kind !== "rex2" && map === 3) return 1;
  if (kind !== "rex2" && map === 7) return 4;
  if (kind === "rex2" && map === 1) {
    return opcode === 0xa4 || opcode === 0xac || opcode === 0xba ? 1 : 0;
  }
  if (map !== 0 && map !== 4) return 0;
  switch (opcode) {
    case 0x24:
    case 0x2c:
      return map === 4 ? 1 : 0;
    case 0x6b:
    case 0x80:
    case 0x83:
    case 0xc0:
    case 0xc1:
    case 0xc6:
      return 1;
    case 0x68:
    case 0x69:
    case 0x81:
    case 0xc7:
      return z;
    case 0xa1:
      return map === 0 ? 8 : 0;
    case 0xf6:
      return group < 2 ? 1 : 0;
    case 0xf7:
      return group < 2 ? z : 0;
    default:
      if (map === 0 && opcode >= 0xb0 && opcode <= 0xb7) return 1;
      if (map === 0 && opcode >= 0xb8 && opcode <= 0xbf) return bits / 8;
      return 0;
  }
}

function hasModrm(kind: Parsed["kind"], map: number, opcode: number): boolean {
  if (kind !== "rex2") return true;
  if (map === 1) return opcode < 0xc8 || opcode > 0xcf;
  return !(opcode >= 0x50 && opcode <= 0x5f) && !(opcode >= 0x90 && opcode <= 0x97) &&
    !(opcode >= 0xb0 && opcode <= 0xbf) && opcode !== 0xa1;
}

/** Reads the instruction at the start of `bytes`; `undefined` if it has none of the prefixes. */
export function parse(bytes: readonly number[]): Parsed | undefined {
  let at = 0;
  let legacy = 0;
  while ([0x66, 0xf2, 0xf3, 0x2e].includes(bytes[at]!)) {
    if (bytes[at] !== 0x2e) legacy = bytes[at]!;
    at++;
  }
  const bit = (byte: number, n: number): number => (byte >> n) & 1;
  const take = (): number => bytes[at++]!;
  const lead = take();
  let kind: Parsed["kind"];
  let map: number, opcode: number, w: number;
  let pp = legacy;
  let r = 0, x = 0, b = 0, v = 0, nd = false, nf = false, condition = 0, defaults = 0;
  if (lead === 0xd5) {
    kind = "rex2";
    const p = take();
    map = bit(p, 7);
    r = bit(p, 6) * 16 + bit(p, 2) * 8;
    x = bit(p, 5) * 16 + bit(p, 1) * 8;
    b = bit(p, 4) * 16 + bit(p, 0) * 8;
    w = bit(p, 3);
    opcode = take();
  } else if (lead === 0xc4 || lead === 0x62) {
    const p0 = take();
    const p1 = take();
    r = (1 - bit(p0, 7)) * 8;
    x = (1 - bit(p0, 6)) * 8;
    b = (1 - bit(p0, 5)) * 8;
    w = bit(p1, 7);
    v = 15 - ((p1 >> 3) & 15);
    pp = [0, 0x66, 0xf3, 0xf2][p1 & 3]!;
    if (lead === 0xc4) {
      kind = "vex";
      map = p0 & 31;
    } else {
      kind = "evex";
      const p2 = take();
      map = p0 & 7;
      r += (1 - bit(p0, 4)) * 16;
      b += bit(p0, 3) * 16;
      x += (1 - bit(p1, 2)) * 16;
      v += (1 - bit(p2, 3)) * 16;
      nd = bit(p2, 4) === 1;
      nf = bit(p2, 2) === 1;
      condition = p2 & 15;
      defaults = (p1 >> 3) & 15;
    }
    opcode = take();
  } else return undefined;
  const bits = w === 1 ? 64 : pp === 0x66 ? 16 : 32;
  let reg = 0, group = 0, rm = (opcode & 7) + b;
  let memory: MemoryOperand | undefined;
  if (hasModrm(kind, map, opcode)) {
    const modrm = take();
    const mod = modrm >> 6;
    group = (modrm >> 3) & 7;
    reg = group + r;
    rm = (modrm & 7) + b;
    if (mod !== 3) {
      let base = rm, index = -1, scale = 1, displacementBytes = mod === 1 ? 1 : mod === 2 ? 4 : 0;
      let ripRelative = false;
      if ((modrm & 7) === 4) {
        const sib = take();
        scale = 1 << (sib >> 6);
        index = ((sib >> 3) & 7) + x;
        if (index === 4) index = -1;
        base = (sib & 7) + b;
        if ((sib & 7) === 5 && mod === 0) {
          base = -1;
          displacementBytes = 4;
        }
      } else if ((modrm & 7) === 5 && mod === 0) {
        base = -1;
        displacementBytes = 4;
        ripRelative = true;
      }
      let displacement = 0n;
      for (let k = 0; k < displacementBytes; k++) displacement |= BigInt(take()) << BigInt(8 * k);
      displacement = displacementBytes === 0 ? 0n : signed(displacement, 8 * displacementBytes);
      memory = { base, index, scale, displacement, ripRelative };
      rm = -1;
    }
  }
  const count = immediateBytes(kind, map, opcode, bits, group);
  let immediate = 0n;
  for (let k = 0; k < count; k++) immediate |= BigInt(take()) << BigInt(8 * k);
  if (count > 0) immediate = signed(immediate, 8 * count);
  return {
    kind,
    map,
    opcode,
    pp,
    wide: w === 1,
    bits,
    reg,
    group,
    rm,
    memory,
    v,
    nd,
    nf,
    condition,
    defaults,
    immediate,
    length: at,
  };
}
