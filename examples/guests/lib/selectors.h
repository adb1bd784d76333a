/* Segment selectors of the one GDT every guest uses (lib/gdt.S). SYSCALL and SYSRET fix part of the
 * order: STAR[47:32] names the kernel's code, followed by its stack; STAR[63:48] names the 32-bit user
 * code, followed by the user stack, followed by the 64-bit user code (AMD APM volume 2, 6.1.1). */
#ifndef SELECTORS_H
#define SELECTORS_H

#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_USER_CODE32 0x18
#define SEL_USER_DATA 0x20
#define SEL_USER_CODE64 0x28
#define SEL_CODE32 0x30
#define SEL_CODE16 0x38 /* base LOW_MEMORY, limit FFFFh */
#define SEL_DATA16 0x40 /* base LOW_MEMORY, limit FFFFh */
#define SEL_TSS 0x48    /* 16 bytes in long mode */

/* Where 16-bit code is copied to: below 1 MiB, paragraph-aligned, clear of the BIOS data area. */
#define LOW_MEMORY 0x7000
#define LOW_MEMORY_SIZE 0x1000

#endif
