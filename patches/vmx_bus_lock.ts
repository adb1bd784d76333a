/**
 * Bus locks of a guest.
 *
 * @module
 */
import { busLockExits, busLockSlot, busLockUnseen } from "../plugins/vmx/mod.ts";
import type { Patch } from "./patch.ts";
import { provider } from "./providers.ts";

/** A hypervisor that hears of bus locks. */
export const vmxBusLock: Patch = {
  id: "vmx-bus-lock",
  title: "KVM: VMX: Enable bus lock VM exit",
  posted: { author: "Chenyi Qiang", where: "kvm and linux-kernel", date: "2020-11" },
  state: "merged",
  commits: ["fe6b6bc802b4"],
  changes:
    "With KVM_BUS_LOCK_DETECTION_EXIT the secondary control 30 is set, and every bus lock of the " +
    "guest exits behind its instruction.",
  shows:
    "A locked access across two lines: no exit -> exit 74, once for each; within a line: none.",
  before: {
    name: "before",
    summary: "nobody hears of them",
    plugin: provider(busLockSlot, busLockUnseen),
  },
  after: {
    name: "after",
    summary: "each exits",
    plugin: provider(busLockSlot, busLockExits),
  },
  others: [],
  scenarios: [
    {
      name: "split",
      summary: "locked additions within a line and across two",
      guest: "locks",
      commandLine: "whole=300 split=200",
      vendor: "vmx",
      sameForGuest: true,
    },
  ],
};
