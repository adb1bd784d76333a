/**
 * The order of what each switch does to a host processor, as the sketch and its review describe it.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { REGISTER_WORDS, type Vcpu } from "../../core/mod.ts";
import { type GuestExtendedState, type HostExtendedState, Xcr0 } from "../cpu/mod.ts";
import { type HostApx, HostKernel } from "./host_kernel.ts";
import { APX_SWITCHES, type ApxSwitchName } from "./switches.ts";

const LEGACY = Xcr0.X87 | Xcr0.SSE;
const APX = LEGACY | Xcr0.APX;

/** A processor that notes what is done to it: `X` XCR0 with, `x` without APX; `L` loads, `S` saves. */
class Notes implements HostExtendedState {
  text = "";
  #xcr0 = 0;
  readonly #registers = new Uint32Array(REGISTER_WORDS);

  get xcr0(): number {
    return this.#xcr0;
  }

  set xcr0(value: number) {
    this.#xcr0 = value;
    this.text += (value & Xcr0.APX) === 0 ? "x" : "X";
  }

  #check(): void {
    if ((this.#xcr0 & Xcr0.APX) === 0) throw new Error("#UD");
  }

  loadExtendedRegisters(storage: Uint32Array): void {
    this.#check();
    this.#registers.set(storage);
    this.text += "L";
  }

  storeExtendedRegisters(storage: Uint32Array): void {
    this.#check();
    storage.set(this.#registers);
    this.text += "S";
  }
}

/** What is done around one entry; `|` is the guest. */
function around(
  variant: ApxSwitchName,
  apx: HostApx,
  guestHasApx: boolean,
  xcr0Low: number,
): string {
  const kernel = new HostKernel(apx);
  const extended = APX_SWITCHES[variant]({ kernel, guestHasApx: () => guestHasApx });
  const host = new Notes();
  const registers = new Uint32Array(REGISTER_WORDS);
  const guest: GuestExtendedState = { vcpu: {} as Vcpu, xcr0Low, registers };
  host.xcr0 = kernel.xcr0;
  const enter = (): string => {
    host.text = "";
    extended.enter(host, guest);
    host.text += "|";
    extended.exit(host, guest);
    return host.text;
  };
  enter();
  return enter();
}

/** Variant, host, whether the guest's CPUID has APX, its XCR0, and what is done. */
const ROWS: readonly (readonly [ApxSwitchName, HostApx, boolean, number, string])[] = [
  // Nothing but XCR0, and that only where it differs.
  ["none", "off", true, APX, "X|x"],
  ["none", "user", true, APX, "|"],
  ["none", "user", true, LEGACY, "x|X"],
  // early_xcr0 is what the guest has unless the host has APX and the guest could.
  ["posted", "off", true, APX, "XL|Sx"],
  ["posted", "off", true, LEGACY, "|"],
  ["posted", "user", true, APX, "L|S"],
  // Right before the entry APX goes, and it is back right behind the exit.
  ["posted", "user", true, LEGACY, "x|X"],
  // A guest that cannot have APX gets the same in the same places, but early.
  ["posted", "user", false, LEGACY, "x|X"],
  // XCR0 with APX before the load, without it behind the save.
  ["reviewed", "off", true, APX, "XL|Sx"],
  ["reviewed", "off", true, LEGACY, "|"],
  // A host with APX moves them under its own XCR0.
  ["reviewed", "user", true, APX, "L|S"],
  ["reviewed", "user", true, LEGACY, "x|X"],
  // The kernel's own: values from before, code before the entry; code behind the exit, the values from
  // before again, and a look at them.
  ["reviewed", "kernel", true, APX, "LLL|SLLS"],
  ["reviewed", "kernel", true, LEGACY, "LLx|XLLS"],
];

Deno.test("each switch does what it is described to do, and no more", () => {
  for (const [variant, apx, guestHasApx, xcr0, expected] of ROWS) {
    const name = `${variant}, host ${apx}, guest ${guestHasApx}, XCR0 ${xcr0.toString(16)}h`;
    assertEquals(around(variant, apx, guestHasApx, xcr0), expected, name);
  }
});

Deno.test("a kernel that uses R16–R31 meets #UD or loses its values under the sketch", () => {
  assertThrows(() => around("posted", "kernel", false, LEGACY), Error, "#UD");
  assertThrows(() => around("posted", "kernel", true, LEGACY), Error, "#UD");
  assertThrows(() => around("posted", "kernel", true, APX), Error, "R16");
});
