/**
 * A storm of IPIs: every vCPU sends them to targets that a generator chooses, itself among them.
 *
 * A vCPU sends a target the next one only when the last one has been counted there, for the same vector
 * twice is one interrupt; so each that is lost stops the storm, and each that is doubled shows in the
 * counts.
 *
 * @module
 */
import type { Machine } from "./machine.ts";
import { APIC, BASE, ENTER_X2APIC, Place, STI, store, STRIDE, wrmsr } from "./machine.ts";
import { code, dword, qword } from "../silicon/code.ts";

/** Knuth's MMIX generator. */
const MULTIPLIER = 6364136223846793005n;
const INCREMENT = 1442695040888963407n;
/** Vector of the sender at index 0. */
const FIRST_VECTOR = 0x40;
/** Of the timer that wakes those who wait in HLT. */
const TIMER_VECTOR = 0xee;
/** Number of those who are done: in the first vCPU's data. */
const DONE: number = BASE + Place.DATA + 0x1000;

/** Number of those whose local APIC is enabled: behind it. */
const READY: number = DONE + 8;

/** What a storm is like. */
export interface StormOptions {
  /** How many IPIs each vCPU sends. */
  readonly each: number;
  /** Seed of the generators. */
  readonly seed: bigint;
  /** Ticks between timer interrupts. */
  readonly period?: number;
}

/** The vector that the vCPU at `index` sends. */
export const vectorOf = (index: number): number => FIRST_VECTOR + index;

/** Seed of the generator of the vCPU at `index`. */
const seedOf = (seed: bigint, index: number): bigint =>
  BigInt.asUintN(64, seed * 2n + BigInt(index));

/** How many IPIs each vCPU (first index) sends to each (second index). */
export function stormPlan(count: number, { each, seed }: StormOptions): number[][] {
  return Array.from({ length: count }, (_, sender) => {
    const sent = new Array<number>(count).fill(0);
    let state = seedOf(seed, sender);
    for (let k = 0; k < each; k++) {
      state = BigInt.asUintN(64, state * MULTIPLIER + INCREMENT);
      sent[Number(state >> 40n) % count]!++;
    }
    return sent;
  });
}

/** Puts the storm's code in place on all vCPUs of a machine. */
export function programStorm(machine: Machine, options: StormOptions): void {
  const { each, seed, period = 40_000 } = options;
  const count = machine.vm.vcpus.length;
  const write = (offset: number, value: number): number[] =>
    machine.x2apic ? wrmsr(0x800 + (offset >> 4), value) : store(offset, value);
  for (let index = 0; index < count; index++) {
    const sent = BASE + index * STRIDE + Place.DATA;
    const counters = BASE + Place.COUNTS + 8 * vectorOf(index);
    // Every second vCPU waits in HLT, the others spin.
    const pause = index % 2 === 1 ? "f4 90" : "f3 90";
    // r9 = counter of target r8; r10 = how many were sent there; wait until they are equal.
    const wait = code(
      "4c 89 c0 48 c1 e0 12 4c 8d 88",
      dword(counters),
      "4e 8b 14 c5",
      dword(sent),
      ["4d 39 11 74 04", pause, "eb f7"].join(" "),
    );
    const send = machine.x2apic
      ? code("b9", dword(0x830), "44 89 c2 b8", dword(vectorOf(index)), "0f 30")
      : code(
        "44 89 c0 c1 e0 18 bb",
        dword(APIC + 0x310),
        "89 03 c7 43 f0",
        dword(vectorOf(index)),
      );
    const next = code(
      "48 b8",
      qword(MULTIPLIER),
      "4c 0f af e0 48 b8",
      qword(INCREMENT),
      "49 01 c4 4c 89 e0 48 c1 e8 28 31 d2 b9",
      dword(count),
      "f7 f1 41 89 d0",
    );
    const round = code(next, wait, "4a ff 04 c5", dword(sent), send, "49 ff cd");
    const settle = code(wait, "49 ff c0 49 81 f8", dword(count));
    machine.program(
      index,
      machine.x2apic ? ENTER_X2APIC : "",
      write(0xf0, 0x1ff),
      write(0x3e0, 0xb),
      write(0x320, 0x2_0000 | TIMER_VECTOR),
      write(0x380, period),
      STI,
      // A local APIC that is not enabled yet drops what is sent to it, so all wait for all.
      "f0 ff 04 25",
      dword(READY),
      "81 3c 25",
      dword(READY),
      dword(count),
      "74 04 f3 90 eb ef",
      "49 bc",
      qword(seedOf(seed, index)),
      "41 bd",
      dword(each),
      round,
      "0f 85",
      dword(-(round.length + 6)),
      "4d 31 c0",
      settle,
      "0f 85",
      dword(-(settle.length + 6)),
      "f0 ff 04 25",
      dword(DONE),
      // The first one ends the run when all are done; the others wait.
      index === 0
        ? code("81 3c 25", dword(DONE), dword(count), "74 03 f4 eb f0 31 c0 e6 f4")
        : "f4 eb fd",
    );
  }
}

/** What each vCPU (second index) has received from each (first index). */
export function stormReceived(machine: Machine): number[][] {
  const indexes = machine.vm.vcpus.map((_, index) => index);
  return indexes.map((sender) => indexes.map((to) => machine.received(to, vectorOf(sender))));
}
