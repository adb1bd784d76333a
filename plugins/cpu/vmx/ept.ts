/**
 * Extended page tables: guest physical to host physical addresses (SDM vol. 3, 29.3), the page-modification
 * log (29.3.6), and what drops cached translations: INVEPT, INVVPID, EPTP switching.
 *
 * Memory types are checked and otherwise without effect: there are no caches.
 *
 * @module
 */
import { Access, LINEAR_ACCESS, SHADOW_ACCESS, TABLE_ACCESS, USER_LINEAR } from "../memory/walk.ts";
import type { Microcode } from "../microcode/microcode.ts";
import { registerAddress, S } from "../state/cpu_state.ts";
import { CPU_AREA_BYTES, CPU_AREAS } from "../state/layout.ts";
import { Context, CONTEXT_COUNT, CONTEXTS } from "../state/tlb_layout.ts";
import { type FunctionBuilder, type I32, i32, I32T, type I64, i64, I64T } from "../wasm/mod.ts";
import { capability, EptVpid, hasCapability, VmxMsr } from "./capabilities.ts";
import { illegalEptPointer } from "./control_checks.ts";
import { EptPointer, GUEST_CONTEXT, Secondary } from "./controls.ts";
import { VmxError, VmxExit } from "./exit_reasons.ts";
import { readField, readField32, Vmcs, writeField, writeField32 } from "./fields.ts";
import { notCanonical } from "../memory/canonical.ts";

/** Bits of an EPT entry. */
const READ = 0x1;
const WRITE = 0x2;
const EXECUTE = 0x4;
const LARGE = 0x80;
const ACCESSED = 0x100;
const DIRTY = 0x200;
/** Execute access for user-mode linear addresses, with mode-based execute control. */
const USER_EXECUTE = 0x400;
const ADDRESS = 0x000f_ffff_ffff_f000n;
/** Bits of an entry that leads to a table that must be 0; above level 3 bit 7 as well. */
const TABLE_RESERVED = 0x78;
/** Of a leaf: a page of supervisor shadow stacks, where the EPT pointer asks for such marks. */
const SUPERVISOR_SHADOW_STACK = 1n << 60n;
/** Memory types that do not exist: 2, 3, 7 of bits 5:3. */
const BAD_TYPES = 0x8c;

/** Exit qualification of an EPT violation (28.2.1, table 28-7). */
const Violation = {
  READ: 0x1,
  WRITE: 0x2,
  FETCH: 0x4,
  PERMISSIONS_SHIFT: 3,
  USER_EXECUTE: 0x40,
  LINEAR: 0x80,
  FINAL: 0x100,
  /** The access was one to a shadow stack. */
  SHADOW_STACK: 0x2000,
  /** The page is marked as one of supervisor shadow stacks. */
  SUPERVISOR_SHADOW_STACK: 0x4000,
} as const;

/** Entries of a page-modification log. */
const LOG_ENTRIES = 512;
/** Entries of an EPTP list. */
const EPTP_ENTRIES = 512;

/** Types of INVEPT and INVVPID. */
const InvEpt = { SINGLE: 1, ALL: 2 } as const;
const InvVpid = { ADDRESS: 0, SINGLE: 1, ALL: 2, RETAIN_GLOBALS: 3 } as const;

/** How `flushContexts` flushes. */
const Flush = { PAGE: 0, CONTEXT: 1, EVERYTHING: 2 } as const;

const RAX = registerAddress(0);
const RCX = registerAddress(1);

/** Gives the functions of EPT their bodies. */
export function defineEpt(mc: Microcode): void {
  const { module } = mc;

  const leave = (f: FunctionBuilder, gpa: I64, reason: number, qualification: I64): void => {
    writeField(f, Vmcs.GUEST_PHYSICAL_ADDRESS, gpa);
    f.call(mc.vmxExitFault, reason, qualification);
  };

  /** Writes `gpa` to the log, or exits if it is full. */
  const log = module.define("vmxLog", [I64T], undefined, (f, gpa) => {
    const index = readField32(f, Vmcs.PML_INDEX);
    f.if(index.geU(LOG_ENTRIES), () => f.call(mc.vmxExitFault, VmxExit.PML_FULL, 0));
    const at = readField(f, Vmcs.PML_ADDRESS).add(index.shl(3).extendU());
    const address = f.call(mc.physical, at);
    f.if(address.ne(0), () => f.store64(address, gpa.and(~0xfff)));
    writeField32(f, Vmcs.PML_INDEX, index.sub(1).and(0xffff));
  });

  module.body(mc.eptTranslate, (f, gpa, access) => {
    const kind = access.and(3);
    const isTable = access.and(TABLE_ACCESS).ne(0);
    const isFetch = kind.eq(Access.FETCH);
    const isWrite = kind.eq(Access.WRITE);
    const pointer = S.eptPointer.get(f);
    const flags = pointer.has(EptPointer.ACCESSED_DIRTY);
    const modes = S.secondaryControls.has(f, Secondary.MODE_BASED_EXECUTE);
    const present = modes.select(i32(READ | WRITE | EXECUTE | USER_EXECUTE), i32(7));
    const reserved = S.reservedPte.get(f);
    const allowed = f.variable(I32T, -1);
    const level = f.variable(I32T, pointer.shrU(EptPointer.LEVELS_SHIFT).wrap().and(7).add(1));
    const table = f.variable(I64T, pointer.and(ADDRESS));
    const result = f.variable(I64T, 0);
    const isShadow = access.and(SHADOW_ACCESS).ne(0);
    // Supervisors' shadow stacks, where pages for them are marked.
    const marks = pointer.has(EptPointer.SUPERVISOR_SHADOW_STACK);
    const supervisor = isShadow.and(access.and(USER_LINEAR).eqz()).and(marks);
    const marked = f.variable(I32T, 0);

    const violate = (): void => {
      const permissions = allowed.get().and(7).shl(Violation.PERMISSIONS_SHIFT);
      const user = modes.and(allowed.get().and(USER_EXECUTE).ne(0));
      const linear = access.and(LINEAR_ACCESS).ne(0);
      const both = i32(Violation.READ | Violation.WRITE);
      const what = isFetch.select(
        i32(Violation.FETCH),
        isWrite.select(isTable.select(both, i32(Violation.WRITE)), i32(Violation.READ)),
      );
      const where = isTable.select(i32(Violation.LINEAR), i32(Violation.LINEAR | Violation.FINAL));
      const bits = what.or(permissions)
        .or(user.select(i32(Violation.USER_EXECUTE), i32(0)))
        .or(linear.select(where, i32(0)))
        .or(isShadow.select(i32(Violation.SHADOW_STACK), i32(0)))
        .or(marked.get().select(i32(Violation.SUPERVISOR_SHADOW_STACK), i32(0)));
      f.if(linear, () => writeField(f, Vmcs.GUEST_LINEAR_ADDRESS, S.walkLinear.get(f)));
      leave(f, gpa, VmxExit.EPT_VIOLATION, bits.extendU());
    };

    f.loop((again) => {
      const shift = level.get().mul(9).add(3);
      const index = gpa.shrU(shift.extendU()).and(0x1ff);
      const address = f.call(mc.physical, table.get().add(index.shl(3)));
      const entry = f.choose(I64T, address.ne(0), () => f.load64(address), () => -1);
      const low = entry.wrap();
      f.if(
        low.and(present).eqz(),
        () => {
          allowed.set(0);
          violate();
        },
        undefined,
        "unlikely",
      );
      const leaf = low.and(LARGE).ne(0).or(level.get().eq(1));
      const leafLevels = hasCapability(f, VmxMsr.EPT_VPID, EptVpid.PAGE_1G)
        .select(i32(3), i32(2));
      const isLeaf = leaf.and(level.get().leU(leafLevels));
      const span = i64(1).shl(shift.extendU()).sub(1);
      const type = low.shrU(3).and(7);
      const wrong = low.and(READ | WRITE).eq(WRITE)
        .or(entry.has(reserved))
        .or(isLeaf.select(
          i32(BAD_TYPES).shrU(type).and(1).or(entry.and(span).has(~0xfffn)),
          low.and(TABLE_RESERVED | LARGE).ne(0),
        ));
      f.if(wrong, () => leave(f, gpa, VmxExit.EPT_MISCONFIGURATION, i64(0)), undefined, "unlikely");
      const above = allowed.get();
      allowed.set(above.and(low));
      f.if(isLeaf, () => {
        marked.set(marks.and(entry.has(SUPERVISOR_SHADOW_STACK)));
        const user = modes.and(access.and(USER_LINEAR).ne(0));
        const fetch = user.select(i32(USER_EXECUTE), i32(EXECUTE));
        const needed = isFetch.select(fetch, isWrite.select(i32(WRITE), i32(READ)));
        // The leaf of a marked page need not be writable, only what leads to it (SDM vol. 3, 29.3.3.2).
        const tables = above.and(WRITE).ne(0).and(allowed.get().and(READ));
        const denied = supervisor.select(
          marked.get().and(tables).eqz(),
          allowed.get().and(needed).eqz(),
        );
        f.if(denied, violate, undefined, "unlikely");
        f.if(flags, () => {
          const wanted = isWrite.select(i32(ACCESSED | DIRTY), i32(ACCESSED));
          f.if(low.and(wanted).ne(wanted).and(address.ne(0)), () => {
            const dirtied = isWrite.and(low.and(DIRTY).eqz());
            f.if(dirtied.and(S.secondaryControls.has(f, Secondary.PML)), () => f.call(log, gpa));
            f.store64(address, entry.or(wanted.extendU()));
          });
        });
        result.set(entry.and(ADDRESS).and(span.xor(-1)).or(gpa.and(span)));
      }, () => {
        f.if(flags.and(low.and(ACCESSED).eqz()).and(address.ne(0)), () => {
          f.store64(address, entry.or(ACCESSED));
        });
        table.set(entry.and(ADDRESS));
        level.set(level.get().sub(1));
        f.branch(again);
      });
    });
    f.return(result.get());
  });

  const failIf = (f: FunctionBuilder, condition: I32, error: number): void =>
    f.if(condition, () => f.return(f.call(mc.vmxFail, error)), undefined, "unlikely");

  /** Empties the TLB contexts made under an EPT pointer with this root. */
  const flushRoot = module.define("vmxFlushRoot", [I64T], undefined, (f, pointer) => {
    const current = S.tlbContext.get(f);
    const area = S.cpuIndex.get(f).mul(CPU_AREA_BYTES).add(CPU_AREAS + CONTEXTS);
    const k = f.variable(I32T, 0);
    f.while(() => k.get().ltU(CONTEXT_COUNT), () => {
      const context = area.add(k.get().mul(Context.BYTES));
      const used = f.load32(context, Context.USED).ne(0);
      const same = f.load64(context, Context.EPT).xor(pointer).has(ADDRESS).eqz();
      f.if(used.and(same), () => {
        S.tlbContext.set(f, context);
        f.call(mc.flushTlb);
      });
      k.set(k.get().add(1));
    });
    S.tlbContext.set(f, current);
  });

  module.body(mc.invept, (f, type, pointer, high) => {
    const supported = type.eq(InvEpt.SINGLE).or(type.eq(InvEpt.ALL))
      .and(hasCapability(f, VmxMsr.EPT_VPID, EptVpid.INVEPT));
    failIf(f, supported.eqz(), VmxError.INVALIDATION_OPERAND);
    f.if(type.eq(InvEpt.ALL), () => f.call(mc.flushContexts, 0, 0, Flush.EVERYTHING), () => {
      const wrong = illegalEptPointer(f, pointer).or(high.ne(0));
      failIf(f, wrong, VmxError.INVALIDATION_OPERAND);
      f.call(flushRoot, pointer);
    });
    f.return(0);
  });

  module.body(mc.invvpid, (f, type, low, linear) => {
    const supported = type.leU(InvVpid.RETAIN_GLOBALS)
      .and(capability(f, VmxMsr.EPT_VPID).shrU(32).has(1));
    failIf(f, supported.eqz(), VmxError.INVALIDATION_OPERAND);
    failIf(f, low.shrU(16).ne(0), VmxError.INVALIDATION_OPERAND);
    f.if(type.eq(InvVpid.ALL), () => {
      f.call(mc.flushContexts, 0, 0, Flush.EVERYTHING);
      f.return(0);
    });
    failIf(f, low.eqz(), VmxError.INVALIDATION_OPERAND);
    const tag = low.wrap().or(GUEST_CONTEXT);
    f.if(type.eq(InvVpid.ADDRESS), () => {
      failIf(f, notCanonical(f, linear), VmxError.INVALIDATION_OPERAND);
      f.call(mc.flushContexts, tag, linear, Flush.PAGE);
    }, () => f.call(mc.flushContexts, tag, 0, Flush.CONTEXT));
    f.return(0);
  });

  module.body(mc.vmfunc, (f) => {
    const number = f.load32(0, RAX);
    const functions = readField(f, Vmcs.VM_FUNCTION_CONTROLS);
    const exit = (): void => {
      f.call(mc.vmxExit, VmxExit.VMFUNC, 0);
      f.return(1);
    };
    // The only function there is: switching to an EPT pointer of the list.
    const index = f.load32(0, RCX);
    f.if(number.ne(0).or(functions.has(1).eqz()).or(index.geU(EPTP_ENTRIES)), exit);
    const at = readField(f, Vmcs.EPTP_LIST_ADDRESS).add(index.shl(3).extendU());
    const pointer = f.call(mc.readPhysical, at);
    f.if(illegalEptPointer(f, pointer), exit);
    writeField(f, Vmcs.EPT_POINTER, pointer);
    writeField32(f, Vmcs.EPTP_INDEX, index);
    S.eptPointer.set(f, pointer);
    f.call(mc.matchEptContext);
    f.return(0);
  });
}
