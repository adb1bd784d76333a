/**
 * What a processor asks of the program around it.
 *
 * @module
 */

/**
 * The owner of a processor answers what it meets outside: devices, ports, CPUID, MSRs it does not keep
 * itself, interrupt acknowledge. Called from inside {@linkcode Processor.run}, at an instruction that
 * has not taken place yet; values wider than 32 bits go through `Processor.exchange`.
 */
export interface Outside {
  /** Reads 1, 2, 4 or 8 bytes at a physical address that is no memory, into `exchange` words 0 and 1. */
  deviceRead(address: number, bytes: number): void;
  /** Writes `exchange` words 0 and 1 there. */
  deviceWrite(address: number, bytes: number): void;
  /** Reads 1, 2 or 4 bytes of ports. */
  portRead(port: number, bytes: number): number;
  /** Writes ports. */
  portWrite(port: number, bytes: number, value: number): void;
  /** CPUID: EAX, EBX, ECX, EDX go to `exchange` words 0 to 3. */
  cpuid(leaf: number, subleaf: number): void;
  /** RDMSR into `exchange` words 0 and 1; false for #GP. */
  msrRead(index: number): boolean;
  /** WRMSR from `exchange` words 0 and 1; false for #GP. */
  msrWrite(index: number): boolean;
  /** RDPMC of counter `index` (ECX) into `exchange` words 0 and 1; false for #GP, as without it. */
  counterRead?(index: number): boolean;
  /** The interrupt acknowledge cycle: a vector, 0 to 255; −1 if the line was withdrawn. */
  acknowledge(): number;
  /**
   * FERR#: an x87 exception is pending with CR0.NE clear. The processor freezes until an interrupt comes.
   * Called in the middle of the instruction; answers whether there is such a pin. Without it the processor
   * stops with an error.
   */
  numericError?(): boolean;
  /** A store has ended the wait of its MWAIT. It may not be the processor that is loaded. */
  woken?(): void;
  /**
   * CR8, which is `priority` (0 to 15) now, was written: interrupts may have become deliverable, or
   * wait. Called in the middle of the instruction; it may drive the INTR pin, and nothing else.
   */
  setTaskPriority?(priority: number): void;
}

/** Nothing outside: reads are all ones, writes are lost, MSRs do not exist. */
export const NO_OUTSIDE: Outside = {
  deviceRead: () => {},
  deviceWrite: () => {},
  portRead: () => 0xffff_ffff,
  portWrite: () => {},
  cpuid: () => {},
  msrRead: () => false,
  msrWrite: () => false,
  acknowledge: () => -1,
};
