/* Ring 3: what the kernel side (user.64.c, syscall.S) and the programs there (user.S) agree on. */
#ifndef USER_H
#define USER_H

/* System calls: number in RAX, arguments in RDI and RSI; by SYSCALL or by INT 80h. */
#define SYS_EXIT 0   /* ends the program */
#define SYS_WRITE 1  /* address, length: prints text */
#define SYS_REPORT 2 /* index, value: leaves a number for the kernel to look at */
#define SYS_FLAGS 3  /* the kernel's own RFLAGS on entry */

#define USER_GATE 0x80                /* an IDT gate of DPL 3 */
#define USER_DENIED_GATE 0x20         /* one of DPL 0 */
#define SUPERVISOR_ADDRESS 0x100000   /* the kernel's own text, one to one */

/* Indices of SYS_REPORT. */
#define REPORT_CS 0
#define REPORT_SS 1
#define REPORT_RCX 2 /* after SYSCALL, and the address behind it */
#define REPORT_NEXT 3
#define REPORT_R11 4 /* after SYSCALL, and RFLAGS before it */
#define REPORT_FLAGS 5
#define REPORT_INSIDE 6 /* RFLAGS the kernel had, DF being set outside */
#define REPORT_AFTER 7  /* RFLAGS after that call */
#define REPORT_KEPT 8   /* whether the call kept the other registers */
#define REPORT_DONE 9   /* last thing before leaving: the argument */
#define REPORTS 10

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The block copied to user memory, and the programs in it. */
extern const uint8_t user_begin[], user_end[];
extern const uint8_t user_tour[], user_brief[], user_port[], user_cli[], user_hlt[], user_out[];
extern const uint8_t user_cr0[], user_rdmsr[], user_lidt[], user_invlpg[], user_sysret[], user_swapgs[];
extern const uint8_t user_gate[], user_read[], user_write[], user_fetch[];

/* syscall.S. What the kernel's GS base points to. */
struct percpu {
  uint64_t kernel_stack, user_stack;
};

/* Runs ring 3 code, with IF clear, until it makes SYS_EXIT; answers that call's argument. */
uint64_t enter_by_iretq(uint64_t rip, uint64_t rsp);
uint64_t enter_by_sysret(uint64_t rip, uint64_t rsp);

/* Leaves ring 3 for good: the enter_ function returns value. */
_Noreturn void leave_user(uint64_t value);

void syscall_entry(void); /* for LSTAR */
#endif

#endif
