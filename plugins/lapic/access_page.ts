/**
 * The page that is in the guest's memory where its local APICs are, while a processor redirects accesses
 * to it: AVIC's scratch page, VMX's APIC-access page. Nobody is to see what is in it.
 *
 * @module
 */
import { type HostMemory, PAGE_SIZE } from "../../core/mod.ts";
import { DEFAULT_APIC_BASE } from "./base.ts";

/** The page of one VM. */
export class ApicAccessPage {
  /** Host physical address. */
  readonly hpa: number;
  readonly #memory: HostMemory;
  readonly #unmap: (gpa: number) => void;
  #mapped = false;

  /** `unmap` takes the page at a guest physical address out of the second-level tables. */
  constructor(memory: HostMemory, unmap: (gpa: number) => void) {
    this.#memory = memory;
    this.#unmap = unmap;
    this.hpa = memory.alloc(PAGE_SIZE);
  }

  /**
   * The page to map for `gpa`, if it is the local APICs' and `allowed`. The second-level tables are those
   * of all vCPUs, so it must not be there while one of them has to be emulated.
   */
  answer(gpa: number, allowed: () => boolean): number | undefined {
    if (gpa - gpa % PAGE_SIZE !== DEFAULT_APIC_BASE || !allowed()) return undefined;
    this.#mapped = true;
    return this.hpa;
  }

  /** Takes it away: at the next access it is asked for again. */
  drop(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    this.#unmap(DEFAULT_APIC_BASE);
  }

  /** Gives the memory back. */
  free(): void {
    this.#memory.free(this.hpa);
  }
}
