/**
 * The PCI bus of a PC: configuration mechanism 1 at CF8h and CFCh, a host bridge, and an ISA bridge that
 * routes the bus's interrupts.
 *
 * | device | what                                                                                   |
 * | ------ | -------------------------------------------------------------------------------------- |
 * | 0      | host bridge, 8086h:1237h (Intel 82441FX)                                               |
 * | 1      | ISA bridge, 8086h:7000h (Intel 82371SB), with the registers PIRQRC at 60h to 63h       |
 *
 * Other plugins add functions with {@linkcode addPciFunction}. Pin INTx# of device d
 * goes to input (d + pin + 2) mod 4 of the ISA bridge, as on boards with that chip set, and from there to
 * the line that the bridge's register names; several on one line are wired together. All is as firmware
 * leaves it: inputs on lines 10, 10, 11 and 11, level-triggered, ranges at C000h and F000_0000h on.
 *
 * The host bridge's SMRAM register at 72h (82441FX data sheet, 3.2.24) hides A0000h to BFFFFh from all but
 * system management mode where it is enabled and not open, and keeps its bits once it is locked. While it is
 * not enabled RAM is there, as the board has no display that would be.
 *
 * CF9h, between the two ports, is the ISA bridge's reset control register: bit 2 going from 0 to 1 asks
 * for a reset (82371SB data sheet, 2.5.4).
 *
 * Limits: one bus, no bridges to others. The host bridge's registers PAM0 to PAM6 read back and do nothing:
 * memory is where the VM has it. SMRAM cannot be closed to data alone: D_CLS stays clear. Base addresses have 32 bits. Accesses to a range of a function that lies where
 * something else is go there.
 *
 * @example What is at device 0
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { pci } from "@trapline/trapline/pci";
 *
 * using machine = scriptedVm({ plugins: [pci()] });
 * const { pio } = machine.vm;
 * pio.write(0xcf8, 4, 0x8000_0000);
 * console.assert(pio.read(0xcfc, 4) === 0x1237_8086);
 * ```
 *
 * @module
 */

import {
  defineSlot,
  type KeyedHookPoint,
  type MemoryRange,
  type Plugin,
  resetHook,
  type Slot,
  vcpuCreatedHook,
  type Vm,
} from "../../core/mod.ts";
import {
  addPciFunction,
  PciCommand,
  type PciFunction,
  pciFunctionHook,
  type PciFunctionOptions,
  pciPinHook,
  PciRegister,
} from "./function.ts";

export {
  addPciFunction,
  type PciBar,
  type PciCapability,
  PciCommand,
  PciFunction,
  pciFunctionHook,
  type PciFunctionOptions,
  pciPinHook,
  PciRegister,
} from "./function.ts";

/** The bus, for plugins that describe it to a guest. */
export interface PciBus {
  /** What is on the bus, by ascending device and function. */
  readonly functions: readonly PciFunction[];
  /** The line that a device's interrupt pin (1 to 4) leads to now; -1 if it leads nowhere. */
  lineOf(device: number, pin: number): number;
}

/** The bus. */
export const pciSlot: Slot<PciBus> = defineSlot("pci");

const ADDRESS_PORT = 0xcf8;
const DATA_PORT = 0xcfc;
/** Offset of the reset control register from the address port. */
const RESET_CONTROL = 1;
const RESET = 0x04;
const RESET_CONTROL_KEPT = 0x02;
const ENABLE = 0x8000_0000;
const ADDRESS_BITS = 0x80ff_fffc;

const FUNCTIONS = 256;
/** Lines that the ISA bridge reaches. */
const LINES = 16;
/** Inputs PIRQA# to PIRQD# of the ISA bridge. */
const INPUTS = 4;
const ROUTES = 0x60;
const NOT_ROUTED = 0x80;
/** As firmware programs them. */
const FIRMWARE_ROUTES: readonly number[] = [10, 10, 11, 11];
/** Where firmware places what base address registers map. */
const FIRST_PORT = 0xc000;
const FIRST_ADDRESS = 0xf000_0000;
/** Port of the edge/level control register of lines 8 to 15. */
const LEVEL_CONTROL = 0x4d1;

/** Attributes of the memory from C0000h to FFFFFh (82441FX data sheet, 3.2.16). */
const ATTRIBUTES: readonly number[] = [0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f];
/** All of it is RAM, to be read and written. */
const SHADOWED = 0x33;

const SMRAM = 0x72;
/** Bits of SMRAM. */
const SmramBit = {
  /** D_OPEN: memory is there in all modes. */
  OPEN: 0x40,
  /** D_LCK: OPEN is clear, and the register cannot be written until RESET. */
  LOCK: 0x10,
  /** G_SMRAME: system management mode has memory there. */
  ENABLE: 0x08,
  /** C_BASE_SEG, which is fixed: A0000h. */
  BASE: 0x02,
} as const;
const SMRAM_RANGE: MemoryRange = { gpa: 0xa_0000, size: 0x2_0000 };

/** The host bridge, whose SMRAM register is `written` with its value. */
function hostBridge(shadowed: boolean, written: () => void): PciFunctionOptions {
  const { OPEN, LOCK, ENABLE, BASE } = SmramBit;
  return {
    name: "host bridge",
    device: 0,
    vendorId: 0x8086,
    deviceId: 0x1237,
    revision: 2,
    classCode: 0x06_0000,
    registers: [
      ...ATTRIBUTES.map((offset) => [offset, shadowed ? SHADOWED : 0, 0xff] as const),
      [SMRAM, BASE, OPEN | LOCK | ENABLE],
    ],
    written,
  };
}

/** What is kept besides the functions' configuration spaces. */
interface State {
  address: number;
  resetControl: number;
}

/** The bus in one VM. */
class Bus implements PciBus {
  readonly #vm: Vm;
  readonly #find: KeyedHookPoint<() => PciFunction | undefined, "first">;
  /** The line of each input of the ISA bridge, -1 for none. */
  #routes: readonly number[] = [-1, -1, -1, -1];
  /** Lines as they are driven, bit n for line n. */
  #driven = 0;

  constructor(vm: Vm) {
    this.#vm = vm;
    this.#find = vm.hooks.keyedPoint(pciFunctionHook);
  }

  get functions(): readonly PciFunction[] {
    const found = Array.from({ length: FUNCTIONS }, (_, address) => this.find(address));
    return found.filter((each) => each !== undefined);
  }

  find(address: number): PciFunction | undefined {
    return this.#find.get(address)?.();
  }

  lineOf(device: number, pin: number): number {
    return this.#routes[inputOf(device, pin)] as number;
  }

  /** Leads the inputs to other lines. */
  route(lines: readonly number[]): void {
    this.#routes = lines;
    this.update();
  }

  /** Drives the lines to what the pins say. */
  update(): void {
    let driven = 0;
    for (let address = 0; address < FUNCTIONS; address++) {
      const found = this.find(address);
      if (found === undefined || !found.pin) continue;
      const { device, interruptPin = 0 } = found.options;
      const line = interruptPin === 0 ? -1 : this.lineOf(device, interruptPin);
      if (line >= 0) driven |= 1 << line;
    }
    const changed = driven ^ this.#driven;
    this.#driven = driven;
    for (let line = 0; line < LINES; line++) {
      if ((changed >> line & 1) !== 0) this.#vm.setIrqLine(line, (driven >> line & 1) !== 0);
    }
  }
}

/** Input of the ISA bridge that a pin (1 to 4) is wired to. */
function inputOf(device: number, pin: number): number {
  return (device + pin + 2) % INPUTS;
}

/** Options of {@linkcode pci}. */
export interface PciOptions {
  /**
   * Whether the host bridge says that C0000h to FFFFFh are RAM, as firmware leaves it; as after RESET if not.
   * `true` if not given.
   */
  readonly shadowed?: boolean;
}

/** The PCI bus as a plugin. */
export function pci(options: PciOptions = {}): Plugin {
  const { shadowed = true } = options;
  return {
    name: "pci",
    version: "1.0.0",
    description: "A PCI bus with a host bridge and an ISA bridge, and reset control at CF9h",
    provides: [pciSlot],
    setup(ctx) {
      const { vm } = ctx;
      const bus = new Bus(vm);
      ctx.provide(pciSlot, bus);
      ctx.on(pciPinHook, () => bus.update());
      const state = ctx.vmState<State>({
        name: "ports",
        version: 1,
        init: () => ({ address: 0, resetControl: 0 }),
        save: ({ address, resetControl }) => ({ address, resetControl }),
        load: (saved) => ({ ...saved as unknown as State }),
      }).current;

      const reroute = (): void => {
        const lines: number[] = [];
        for (let input = 0; input < INPUTS; input++) {
          const value = isaBridge.read(ROUTES + input, 1);
          lines.push((value & NOT_ROUTED) !== 0 ? -1 : value & 0x0f);
        }
        bus.route(lines);
      };
      /** SMRAM as it was before software wrote it last. */
      let smram: number = SmramBit.BASE;
      const bridge = addPciFunction(ctx, hostBridge(shadowed, () => updateSmram()));
      const updateSmram = (): void => {
        const written = bridge.read(SMRAM, 1);
        const now = (smram & SmramBit.LOCK) !== 0
          ? smram
          : (written & SmramBit.LOCK) !== 0
          ? written & ~SmramBit.OPEN
          : written;
        bridge.set(SMRAM, 1, now);
        const hidden = (value: number): boolean =>
          (value & SmramBit.ENABLE) !== 0 && (value & SmramBit.OPEN) === 0;
        const changes = hidden(now) !== hidden(smram);
        smram = now;
        if (changes) vm.vendor.current.setSmram?.(hidden(now) ? [SMRAM_RANGE] : []);
      };
      const isaBridge = addPciFunction(ctx, {
        name: "ISA bridge",
        device: 1,
        vendorId: 0x8086,
        deviceId: 0x7000,
        classCode: 0x06_0100,
        multifunction: true,
        registers: FIRMWARE_ROUTES.map((line, input) => [ROUTES + input, line, 0x8f]),
        written: reroute,
      });
      reroute();

      /** What firmware does at power-up and after RESET, without which nobody finds the interrupts. */
      const configure = (): void => {
        let levels = vm.pio.read(LEVEL_CONTROL, 1);
        for (const line of FIRMWARE_ROUTES) levels |= 1 << (line - 8);
        if (levels !== 0xff) vm.pio.write(LEVEL_CONTROL, 1, levels);
        let [nextPort, nextAddress] = [FIRST_PORT, FIRST_ADDRESS];
        for (const each of bus.functions) {
          const { device, interruptPin = 0, bars = [] } = each.options;
          if (interruptPin !== 0) {
            each.write(PciRegister.INTERRUPT_LINE, 1, bus.lineOf(device, interruptPin) & 0xff);
          }
          for (const { index, kind, size } of bars) {
            const next = kind === "io" ? nextPort : nextAddress;
            const base = Math.ceil(next / size) * size;
            each.write(PciRegister.BAR0 + 4 * index, 4, base);
            if (kind === "io") nextPort = base + size;
            else nextAddress = base + size;
          }
          if (bars.length > 0) {
            const enabled = PciCommand.IO | PciCommand.MEMORY | PciCommand.MASTER;
            each.write(PciRegister.COMMAND, 2, enabled);
          }
        }
      };

      const selected = (): PciFunction | undefined => {
        const { address } = state;
        if ((address & ENABLE) === 0 || (address >>> 16 & 0xff) !== 0) return undefined;
        return bus.find(address >>> 8 & 0xff);
      };
      ctx.registerPio({
        name: "PCI configuration address",
        base: ADDRESS_PORT,
        length: 4,
        read(offset, size) {
          if (size === 4) return state.address;
          return offset === RESET_CONTROL && size === 1 ? state.resetControl : 0xffff_ffff;
        },
        write(offset, size, value) {
          if (size === 4) state.address = (value & ADDRESS_BITS) >>> 0;
          if (offset !== RESET_CONTROL || size !== 1) return;
          const rises = (value & ~state.resetControl & RESET) !== 0;
          state.resetControl = value & (RESET_CONTROL_KEPT | RESET);
          if (rises) vm.stop({ reason: "reset" });
        },
      });
      ctx.registerPio({
        name: "PCI configuration data",
        base: DATA_PORT,
        length: 4,
        read: (offset, size) =>
          selected()?.read((state.address & 0xfc) + offset, size) ?? 0xffff_ffff,
        write: (offset, size, value) =>
          selected()?.write((state.address & 0xfc) + offset, size, value),
      });
      ctx.on(resetHook, () => {
        state.address = state.resetControl = 0;
        for (const each of bus.functions) each.reset();
        smram &= ~SmramBit.LOCK;
        updateSmram();
        reroute();
        configure();
      }, { stage: "post" });
      ctx.on(vcpuCreatedHook, (vcpu) => {
        if (vcpu.index !== 0) return;
        configure();
        updateSmram();
      });
    },
  };
}
