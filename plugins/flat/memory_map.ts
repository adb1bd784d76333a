/**
 * The memory map, as loaders report it to their guests.
 *
 * @module
 */

import { type MemoryRange, type Vm, withoutHoles } from "../../core/mod.ts";
import { LoadPlan } from "./plan.ts";

/** A range of guest physical memory, and what it is for. */
export interface MemoryMapEntry extends MemoryRange {
  /** 1 for RAM that the guest may use, 2 for what it may not. */
  readonly type: 1 | 2;
}

/** The memory as a loader tells of it. */
export interface MemoryReport {
  /** KiB of RAM from address 0 on, at most 640. */
  readonly lower: number;
  /** KiB of RAM from 1 MiB on, up to the first hole. */
  readonly upper: number;
  /** Everything, by ascending address. */
  readonly map: readonly MemoryMapEntry[];
}

const AVAILABLE = 1;
const RESERVED = 2;

const MIB = 2 ** 20;
/** From 640 KiB to 1 MiB a PC has video memory and firmware. */
const LEGACY: MemoryRange = { gpa: 0xa_0000, size: 0x6_0000 };

/** Describes the memory of `vm`. */
export function reportMemory(vm: Vm): MemoryReport {
  const ram = LoadPlan.ram(vm);
  const kib = (start: number, limit: number): number => {
    const range = ram.find(({ gpa, size }) => gpa <= start && start < gpa + size);
    return range === undefined
      ? 0
      : Math.floor((Math.min(range.gpa + range.size, limit) - start) / 1024);
  };
  const map: MemoryMapEntry[] = [
    ...withoutHoles(ram, [LEGACY]).map((range) => ({ ...range, type: AVAILABLE } as const)),
    ...vm.memory.slots.filter((slot) => slot.readonly && !within(slot, LEGACY))
      .map(({ gpa, size }) => ({ gpa, size, type: RESERVED } as const)),
    { ...LEGACY, type: RESERVED },
  ];
  map.sort((a, b) => a.gpa - b.gpa);
  return { lower: kib(0, LEGACY.gpa), upper: kib(MIB, 2 ** 32), map };
}

function within(inner: MemoryRange, outer: MemoryRange): boolean {
  return inner.gpa >= outer.gpa && inner.gpa + inner.size <= outer.gpa + outer.size;
}
