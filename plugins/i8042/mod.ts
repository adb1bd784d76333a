/**
 * The keyboard controller of a PC: an 8042 at ports 60h and 64h, with a keyboard and no mouse.
 *
 * The controller's commands, its configuration byte with translation, its output port with the A20 gate
 * and the reset line are there, and interrupt line 1. The keyboard answers reset, identity, scan code
 * sets and all other commands; no key is ever pressed. Nothing is plugged into the second port: what is
 * sent to it comes back as a time-out, as on a PC.
 *
 * (IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and auxiliary device
 * controller".)
 *
 * Limits: no keys and no mouse. Answers take no time. The A20 gate masks nothing: see the plugin port92.
 *
 * @example
 * ```ts
 * import { scriptedVm } from "@trapline/trapline/core/testing";
 * import { i8042 } from "@trapline/trapline/i8042";
 *
 * using machine = scriptedVm({ plugins: [i8042()] });
 * const { pio } = machine.vm;
 * pio.write(0x64, 1, 0xaa); // the controller's self-test
 * console.assert(pio.read(0x60, 1) === 0x55);
 * ```
 *
 * @module
 */

import { type Plugin, resetHook, vcpuCreatedHook } from "../../core/mod.ts";
import { a20Slot } from "../port92/mod.ts";
import { Keyboard, translate } from "./keyboard.ts";

const DATA_PORT = 0x60;
const COMMAND_PORT = 0x64;
const LINE = 1;

/** Bits of the status register. */
const Status = {
  OUTPUT_FULL: 0x01,
  SYSTEM: 0x04,
  COMMAND: 0x08,
  UNLOCKED: 0x10,
  AUXILIARY: 0x20,
  TIMEOUT: 0x40,
} as const;

/** Bits of the configuration byte. */
const Config = {
  INTERRUPT: 0x01,
  SYSTEM: 0x04,
  DISABLED: 0x10,
  AUXILIARY_DISABLED: 0x20,
  TRANSLATE: 0x40,
} as const;

/** As firmware leaves it: interrupts, translation, and the port without a mouse disabled. */
const FIRMWARE_CONFIG: number = Config.INTERRUPT | Config.SYSTEM | Config.AUXILIARY_DISABLED |
  Config.TRANSLATE;

/** Commands to the controller. */
const Command = {
  READ_RAM: 0x20,
  LAST_READ_RAM: 0x3f,
  WRITE_RAM: 0x60,
  LAST_WRITE_RAM: 0x7f,
  DISABLE_AUXILIARY: 0xa7,
  ENABLE_AUXILIARY: 0xa8,
  TEST_AUXILIARY: 0xa9,
  SELF_TEST: 0xaa,
  TEST_KEYBOARD: 0xab,
  DISABLE_KEYBOARD: 0xad,
  ENABLE_KEYBOARD: 0xae,
  READ_INPUT: 0xc0,
  READ_OUTPUT: 0xd0,
  WRITE_OUTPUT: 0xd1,
  WRITE_KEYBOARD_BUFFER: 0xd2,
  WRITE_AUXILIARY_BUFFER: 0xd3,
  WRITE_AUXILIARY: 0xd4,
  /** From here on, output port bits that are 0 in bits 3:0 are pulsed low. */
  PULSE: 0xf0,
} as const;

const SELF_TEST_PASSED = 0x55;
const PORT_TEST_PASSED = 0x00;
/** Input port: the keyboard is not locked. */
const INPUT_UNLOCKED = 0x80;
/** Output port: the processor's reset pin, active low, and A20. */
const OUTPUT_NO_RESET = 0x01;
const OUTPUT_A20 = 0x02;
/** What a device answers that is not there: "resend", with the time-out bit. */
const NO_DEVICE = 0xfe;

/** Where a byte in the output buffer came from, beside its value. */
const FROM_AUXILIARY = 0x100;
const TIMED_OUT = 0x200;

type Saved = {
  readonly ram: Uint8Array;
  readonly command: number;
  readonly commandLast: boolean;
  readonly replies: readonly number[];
  readonly sent: readonly number[];
  readonly pending: number;
  readonly scanCodeSet: number;
  readonly last: number;
};

/** The controller and its keyboard. */
class Controller {
  readonly ram: Uint8Array = new Uint8Array(32);
  readonly keyboard: Keyboard = new Keyboard();
  /** Command that waits for its parameter; 0 if none does. */
  command = 0;
  /** Whether the last write was a command. */
  commandLast = false;
  /** Bytes of the controller's own, with {@linkcode FROM_AUXILIARY} and {@linkcode TIMED_OUT}. */
  replies: number[] = [];
  /** Bytes that the keyboard sends. */
  sent: number[] = [];

  constructor() {
    this.reset();
  }

  get config(): number {
    return this.ram[0] as number;
  }

  set config(value: number) {
    this.ram[0] = value;
  }

  /** The byte in the output buffer, with its origin; -1 if it is empty. */
  get output(): number {
    const [reply] = this.replies;
    if (reply !== undefined) return reply;
    const [sent] = this.sent;
    if (sent === undefined || (this.config & Config.DISABLED) !== 0) return -1;
    return (this.config & Config.TRANSLATE) !== 0 ? translate(sent) : sent;
  }

  /** Empties the output buffer. */
  takeOutput(): void {
    if (this.replies.length > 0) this.replies.shift();
    else if (this.output >= 0) this.sent.shift();
  }

  reset(): void {
    this.ram.fill(0);
    this.config = FIRMWARE_CONFIG;
    this.command = 0;
    this.commandLast = false;
    this.replies = [];
    this.sent = [];
    this.keyboard.pending = 0;
    this.keyboard.scanCodeSet = 2;
  }

  save(): Saved {
    const { ram, command, commandLast, replies, sent, keyboard } = this;
    const { pending, scanCodeSet, last } = keyboard;
    const queues = { replies: [...replies], sent: [...sent] };
    return { ram: ram.slice(), command, commandLast, ...queues, pending, scanCodeSet, last };
  }

  load(saved: Saved): void {
    this.ram.set(saved.ram);
    this.command = saved.command;
    this.commandLast = saved.commandLast;
    this.replies = [...saved.replies];
    this.sent = [...saved.sent];
    this.keyboard.pending = saved.pending;
    this.keyboard.scanCodeSet = saved.scanCodeSet;
    this.keyboard.last = saved.last;
  }
}

/** The keyboard controller as a plugin. */
export function i8042(): Plugin {
  return {
    name: "i8042",
    version: "1.0.0",
    description: "An 8042 keyboard controller at 60h and 64h, with a keyboard",
    optional: ["port92", a20Slot],
    setup(ctx) {
      const { vm } = ctx;
      const a20 = ctx.useOptional(a20Slot);
      const chip = ctx.vmState<Controller>({
        name: "controller",
        version: 1,
        init: () => new Controller(),
        save: (controller) => controller.save(),
        load(saved) {
          const controller = new Controller();
          controller.load(saved as Saved);
          return controller;
        },
      }).current;

      let line = false;
      /** Drives the interrupt line; `next`, when a byte has been taken and another may be there. */
      const update = (next = false): void => {
        const { output } = chip;
        const level = output >= 0 && (output & FROM_AUXILIARY) === 0 &&
          (chip.config & Config.INTERRUPT) !== 0;
        if (next && line && level) vm.setIrqLine(LINE, false);
        if (level !== line || next && level) vm.setIrqLine(LINE, level);
        line = level;
      };
      const reply = (value: number): void => void chip.replies.push(value);
      const setConfig = (on: number, off: number): void => {
        chip.config = chip.config & ~off | on;
      };
      const outputPort = (): number =>
        0xcc | OUTPUT_NO_RESET | (a20.current?.enabled === false ? 0 : OUTPUT_A20) |
        (line ? 0x10 : 0);
      const setOutputPort = (value: number): void => {
        if (a20.current !== undefined) a20.current.enabled = (value & OUTPUT_A20) !== 0;
        if ((value & OUTPUT_NO_RESET) === 0) vm.stop({ reason: "reset" });
      };

      const command = (value: number): void => {
        chip.command = 0;
        if (value >= Command.READ_RAM && value <= Command.LAST_READ_RAM) {
          return reply(chip.ram[value & 0x1f] as number);
        }
        if (value >= Command.WRITE_RAM && value <= Command.LAST_WRITE_RAM) {
          chip.command = value;
          return;
        }
        if (value >= Command.PULSE) {
          // Only the reset pin has an effect when it is pulsed.
          if ((value & OUTPUT_NO_RESET) === 0) vm.stop({ reason: "reset" });
          return;
        }
        switch (value) {
          case Command.DISABLE_AUXILIARY:
            return setConfig(Config.AUXILIARY_DISABLED, 0);
          case Command.ENABLE_AUXILIARY:
            return setConfig(0, Config.AUXILIARY_DISABLED);
          case Command.SELF_TEST:
            return reply(SELF_TEST_PASSED);
          case Command.TEST_AUXILIARY:
          case Command.TEST_KEYBOARD:
            return reply(PORT_TEST_PASSED);
          case Command.DISABLE_KEYBOARD:
            return setConfig(Config.DISABLED, 0);
          case Command.ENABLE_KEYBOARD:
            return setConfig(0, Config.DISABLED);
          case Command.READ_INPUT:
            return reply(INPUT_UNLOCKED);
          case Command.READ_OUTPUT:
            return reply(outputPort());
          case Command.WRITE_OUTPUT:
          case Command.WRITE_KEYBOARD_BUFFER:
          case Command.WRITE_AUXILIARY_BUFFER:
          case Command.WRITE_AUXILIARY:
            chip.command = value;
        }
        // Others are not defined, and have no effect.
      };

      const data = (value: number): void => {
        const waiting = chip.command;
        chip.command = 0;
        if (waiting >= Command.WRITE_RAM && waiting <= Command.LAST_WRITE_RAM) {
          chip.ram[waiting & 0x1f] = value;
          return;
        }
        switch (waiting) {
          case Command.WRITE_OUTPUT:
            return setOutputPort(value);
          case Command.WRITE_KEYBOARD_BUFFER:
            return reply(value);
          case Command.WRITE_AUXILIARY_BUFFER:
            return reply(value | FROM_AUXILIARY);
          case Command.WRITE_AUXILIARY:
            return reply(NO_DEVICE | FROM_AUXILIARY | TIMED_OUT);
          default:
            // To write to the keyboard enables it.
            setConfig(0, Config.DISABLED);
            chip.sent.push(...chip.keyboard.take(value));
        }
      };

      ctx.registerPio({
        name: "keyboard controller data",
        base: DATA_PORT,
        length: 1,
        width: 1,
        read() {
          const { output } = chip;
          chip.takeOutput();
          update(true);
          return output < 0 ? 0 : output & 0xff;
        },
        write(_offset, _size, value) {
          chip.commandLast = false;
          data(value);
          update();
        },
      });
      ctx.registerPio({
        name: "keyboard controller",
        base: COMMAND_PORT,
        length: 1,
        width: 1,
        read() {
          const { output, config, commandLast } = chip;
          return Status.UNLOCKED | (config & Config.SYSTEM) |
            (commandLast ? Status.COMMAND : 0) | (output >= 0 ? Status.OUTPUT_FULL : 0) |
            (output >= 0 && (output & FROM_AUXILIARY) !== 0 ? Status.AUXILIARY : 0) |
            (output >= 0 && (output & TIMED_OUT) !== 0 ? Status.TIMEOUT : 0);
        },
        write(_offset, _size, value) {
          chip.commandLast = true;
          command(value);
          update();
        },
      });
      ctx.on(resetHook, () => {
        chip.reset();
        update();
      });
      ctx.on(vcpuCreatedHook, (vcpu) => {
        if (vcpu.index === 0) update();
      });
    },
  };
}
