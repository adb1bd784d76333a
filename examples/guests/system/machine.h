/* What differs between the modes: tables, page-table entries, entries from user code. */
#ifndef MACHINE_H
#define MACHINE_H

#define VECTOR_CALL 0x80
#define VECTOR_INTERRUPT 0x40

#define WINDOW_PAGES 64
#define SPACES 4

#ifndef __ASSEMBLER__
#include <stdint.h>

/* A page-table entry: 4 bytes in 32-bit mode, 8 in 64-bit mode. */
typedef unsigned long entry;

/* Where the pages are that programs map as they like. */
extern volatile uint8_t *const window;

/* Makes tables and turns paging on; user code may use all of memory. */
void machine_init(void);

/* Undoes what lib/start.S would stumble over. */
void machine_leave(void);

/* The entry of a page of the window in one of the address spaces. They share everything else. */
entry *window_entry(unsigned space, unsigned page);

/* What CR3 holds for an address space; 0 is the one in use after machine_init(). */
unsigned long space_root(unsigned space);

/* Runs ring-3 code that makes `count` system calls and returns when it is done (entries.S). */
void enter_user(const void *program, uint32_t count);
extern const uint8_t user_fast[], user_gate[];

extern const uint8_t entry_fast[], entry_gate[], entry_fault[], entry_interrupt[];

/* system.c, called by the entries. */
void system_call(uint32_t number, uint32_t argument);
void page_fault(unsigned long address);
void interrupt(void);
#endif

#endif
