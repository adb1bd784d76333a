/* Ending the machine. */
#ifndef EXIT_H
#define EXIT_H

#define DEBUG_EXIT_PORT 0xf4

#ifndef __ASSEMBLER__
/* Writes code to the debug-exit port: the machine ends with status (code << 1) | 1. Where there is no
 * such device it halts for good. */
_Noreturn void guest_exit(unsigned char code);
#endif

#endif
