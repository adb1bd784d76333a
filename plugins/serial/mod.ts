/**
 * Serial ports: 16550A UARTs as on a PC, COM1 if not told otherwise.
 *
 * The whole register set is there: divisor latch, FIFOs with trigger levels and time-out, the four
 * interrupts with their priorities, modem status, loopback, scratch. OUT2 gates the interrupt line, as
 * on a PC: a driver that leaves it off gets no interrupts, nor does one in loopback mode, in which the
 * OUT2 pin is off. The far end is always there and ready (CTS, DSR, DCD).
 *
 * Characters take no time unless `timing` is `"baud"`: a transmitter is empty again as soon as it is
 * written, and a character that was pushed can be read at once. The receiver's time-out always takes
 * its four character times.
 *
 * What the guest has no room for yet waits outside, so that nothing that is pushed is overrun. A guest
 * may still throw characters away: to enable or to clear the FIFOs empties them. To have all of a
 * prepared input arrive, ask for `flowControl`: then it waits until the guest turns RTS on.
 *
 * Limits: characters have eight bits, whatever the word length in LCR, and come without parity errors;
 * both only decide how long one takes. A break that the guest sends goes nowhere. The DMA pins are not
 * there. The transmitter-empty interrupt is not put off by a character time in FIFO mode.
 *
 * @example A guest's console on the terminal
 * ```ts ignore
 * import { serial } from "@trapline/trapline/serial";
 *
 * const console = serial({
 *   output: (bytes) => Deno.stdout.writeSync(bytes),
 *   input: Deno.stdin.readable,
 * });
 * ```
 *
 * @module
 */

import {
  ArgumentError,
  type Plugin,
  type PluginContext,
  resetHook,
  runEndedHook,
  type Timer,
} from "../../core/mod.ts";
import { inputOf, type SerialInput } from "./input.ts";
import { OutputBuffer, type SerialOutput } from "./output.ts";
import { Uart, type UartBoard, type UartSaved } from "./uart.ts";

export { type InputListener, SerialInput } from "./input.ts";
export type { SerialOutput, SerialWriter } from "./output.ts";

/** Options of {@linkcode serial}. */
export interface SerialOptions {
  /** Name of the plugin, for a VM with several serial ports; `"serial"` if not given. */
  readonly name?: string;
  /** First of its eight ports, 0 to FFF8h; 3F8h, which is COM1, if not given. */
  readonly base?: number;
  /** Interrupt line, 0 to 23; 4, which is COM1's, if not given. Lines are not shared. */
  readonly irq?: number;
  /**
   * Where the guest's characters go; nowhere if not given. They are handed on in pieces: at the
   * latest when 4096 have gathered, when the run gives way to the event loop, and when it ends.
   */
  readonly output?: SerialOutput;
  /**
   * Where characters to the guest come from. While it is open, a guest that has halted with
   * interrupts on waits for it and has not halted for good.
   */
  readonly input?: SerialInput | ReadableStream<Uint8Array>;
  /**
   * How long characters take: `"immediate"`, no time (if not given), or `"baud"`, the time that
   * divisor and frame say, in VM time.
   */
  readonly timing?: "immediate" | "baud";
  /** Whether input waits while the guest has RTS off; `false` if not given. */
  readonly flowControl?: boolean;
}

/** What distinguishes the further serial ports of a PC; COM1 needs no options. */
export const COM: Readonly<
  Record<"COM2" | "COM3" | "COM4", Readonly<Required<Pick<SerialOptions, "name" | "base" | "irq">>>>
> = {
  COM2: { name: "serial2", base: 0x2f8, irq: 3 },
  COM3: { name: "serial3", base: 0x3e8, irq: 4 },
  COM4: { name: "serial4", base: 0x2e8, irq: 3 },
};

/**
 * A serial port as a plugin.
 *
 * @throws {ArgumentError} If an option is out of range.
 */
export function serial(options: SerialOptions = {}): Plugin {
  const { name = "serial", base = 0x3f8, irq = 4 } = options;
  if (!Number.isInteger(base) || base < 0 || base > 0xfff8) {
    throw new ArgumentError(`${name}: base ${base} is not a port from 0 to ${0xfff8}`);
  }
  if (!Number.isInteger(irq) || irq < 0 || irq > 23) {
    throw new ArgumentError(`${name}: irq ${irq} is not an integer from 0 to 23`);
  }
  const settings = { ...options, name, base, irq };
  return {
    name,
    version: "1.0.0",
    description: `A 16550A serial port at ${base.toString(16).toUpperCase()}h`,
    setup: (ctx) => setUp(ctx, settings),
  };
}

type Settings = SerialOptions & { readonly name: string; base: number; irq: number };

function setUp(ctx: PluginContext, settings: Settings): void {
  const { vm } = ctx;
  const { name, base, irq } = settings;
  const failed = failures(ctx, name);
  const output = settings.output === undefined
    ? undefined
    : new OutputBuffer(settings.output, failed);
  const input = settings.input === undefined ? undefined : inputOf(settings.input);

  // The alarms and the UART need each other; none of them goes off before the run.
  const alarm = (what: string, ring: (uart: Uart) => void): Timer =>
    ctx.createTimer(`${name} ${what}`, () => ring(state.current));
  const board: UartBoard = {
    now: () => vm.clock.current.now(),
    transmit: (character) => output?.put(character),
    receive: () => input === undefined ? -1 : input.take(),
    interrupt: (level) => vm.setIrqLine(irq, level),
    transmitAlarm: alarm("transmitter", (uart) => uart.transmitted()),
    receiveAlarm: alarm("receiver", (uart) => uart.received()),
    timeoutAlarm: alarm("time-out", (uart) => uart.timedOut()),
  };
  const make = () =>
    new Uart(board, {
      timed: settings.timing === "baud",
      flowControl: settings.flowControl ?? false,
    });
  const state = ctx.vmState<Uart>({
    name: "uart",
    version: 1,
    init: make,
    save: (uart) => uart.save(),
    load(saved) {
      const uart = make();
      uart.load(saved as UartSaved);
      return uart;
    },
  });
  const uart = state.current;

  ctx.registerPio({
    name,
    base,
    length: 8,
    width: 1,
    read: (offset) => uart.read(offset),
    write: (offset, _size, value) => uart.write(offset, value),
  });
  ctx.on(resetHook, () => uart.reset());
  if (output !== undefined) {
    ctx.on(runEndedHook, () => output.flush(), { stage: "pre" });
    ctx.onLeave(() => output.flush());
  }
  if (input !== undefined) connect(ctx, name, uart, input, failed);
  ctx.onLeave((reason) => {
    // Who leaves for good lets go of the line; another that has the ports by now uses it.
    const replaced = vm.pio.regions.some((region) => region.base === base);
    if (reason === "unload" && uart.level && !replaced) vm.setIrqLine(irq, false);
  });
}

/** Lets the UART receive what comes in. */
function connect(
  ctx: PluginContext,
  name: string,
  uart: Uart,
  input: SerialInput,
  failed: (error: unknown) => void,
): void {
  const arrived = (): void => {
    uart.poll();
    // A guest that waits with a character below the trigger level now has a time-out to wait for.
    ctx.vm.wake();
  };
  const source = input.closed ? undefined : ctx.addWakeSource(`${name} input`);
  const listener = {
    arrived,
    ended: () => source?.remove(),
    failed(error: unknown) {
      source?.remove();
      failed(error);
    },
  };
  input.attach(listener);
  ctx.onLeave(() => input.detach(listener));
  uart.poll();
}

/**
 * A function for errors that come up while nobody is there to catch them: the next thing that the VM
 * does is to end the run with that error.
 */
function failures(ctx: PluginContext, name: string): (error: unknown) => void {
  let left = false;
  let error: unknown;
  const timer = ctx.createTimer(`${name} connection`, () => {
    throw error;
  });
  ctx.onLeave(() => void (left = true));
  return (cause) => {
    // The VM does not have the port any more: the error is the program's.
    if (left) throw cause;
    error = cause;
    timer.arm(ctx.vm.clock.current.now());
    ctx.vm.wake();
  };
}
