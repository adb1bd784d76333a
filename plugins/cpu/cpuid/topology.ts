/**
 * What CPUID says about the other processors: leaves 0Bh and 1Fh (SDM vol. 2A, CPUID), 8000_0008h ECX
 * and 8000_001Eh (APM vol. 3, E.4.7 and E.4.17). Each core has one thread, and all cores are in one
 * package.
 *
 * @module
 */
import type { CpuidResult, Vcpu } from "../../../core/mod.ts";
import { fill } from "./result.ts";

/** Where a processor is among the others. */
export interface Topology {
  /** Its APIC ID. */
  readonly id: number;
  /** How many processors there are. */
  readonly count: number;
  /** Bits of an APIC ID that tell them apart. */
  readonly idBits: number;
}

/** The topology as `vcpu` sees it. */
export function topologyOf(vcpu: Vcpu): Topology {
  const { id, vm: { vcpus } } = vcpu;
  let most = id;
  for (let k = 0; k < vcpus.length; k++) most = Math.max(most, vcpus[k]!.id);
  return { id, count: Math.max(1, vcpus.length), idBits: 32 - Math.clz32(most) };
}

/** Types of levels in leaves 0Bh and 1Fh. */
const Level = { INVALID: 0, THREAD: 1, CORE: 2 } as const;

/** Leaves 0Bh and 1Fh: EAX is the shift to the next level's ID, EBX the processors at this level. */
export function fillExtendedTopology(result: CpuidResult, { id, count, idBits }: Topology): void {
  const { subleaf } = result;
  const number = subleaf & 0xff;
  if (subleaf === 0) fill(result, 0, 1, number | (Level.THREAD << 8), id);
  else if (subleaf === 1) fill(result, idBits, count, number | (Level.CORE << 8), id);
  else fill(result, 0, 0, number | (Level.INVALID << 8), id);
}

/** ECX of 8000_0008h: the size of the core's part of an APIC ID in 15:12, cores less 1 in 7:0. */
export function coreCount({ count, idBits }: Topology): number {
  return (idBits << 12) | Math.min(count - 1, 0xff);
}

/** Leaf 8000_001Eh: extended APIC ID; core, and threads of it less 1; node, and nodes less 1. */
export function fillExtendedApicId(result: CpuidResult, { id }: Topology): void {
  fill(result, id, id & 0xff, 0, 0);
}
