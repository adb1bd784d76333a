/**
 * A host that meddles with its guest's local APICs when the guest asks for it, as a debugger or a
 * restored state would without being asked.
 *
 * @module
 */
import type { Plugin, Registration, Vcpu } from "../core/mod.ts";
import { interruptControllerSlot } from "../core/mod.ts";
import { AvicInhibit } from "../plugins/svm/avic/mod.ts";

/** Port where a byte 1 inhibits acceleration, and 0 ends that. */
const PORT_INHIBIT = 0xe8;
/** Port where a byte becomes the writer's task priority: bits 3:0 of CR8 in bits 7:4. */
const PORT_TPR = 0xe9;

/** Options of {@linkcode apicHost}. */
export interface ApicHostOptions {
  /** Whether acceleration is inhibited from the beginning; false if not given. */
  readonly inhibited?: boolean;
}

/**
 * At port E8h the guest has the host inhibit the acceleration of interrupts, with KVM's reason
 * BLOCKIRQ; at port E9h it has the host load a task priority.
 */
export function apicHost({ inhibited = false }: ApicHostOptions = {}): Plugin {
  return {
    name: "apic-host",
    version: "1.0.0",
    setup(ctx) {
      let held: Registration | undefined;
      const hold = (wanted: boolean): void => {
        if (wanted === (held !== undefined)) return;
        if (wanted) held = ctx.inhibit(AvicInhibit.BLOCKIRQ);
        else {
          held?.remove();
          held = undefined;
        }
      };
      hold(inhibited);
      const controller = ctx.use(interruptControllerSlot);
      ctx.registerPio({
        name: "apic host",
        base: PORT_INHIBIT,
        length: 1,
        write: (_offset, _size, value) => hold((value & 1) !== 0),
      });
      ctx.registerPio({
        name: "apic host",
        base: PORT_TPR,
        length: 1,
        write(_offset, _size, value, vcpu?: Vcpu) {
          if (vcpu !== undefined) controller.current.setTaskPriority?.(vcpu, value >> 4);
        },
      });
    },
  };
}
