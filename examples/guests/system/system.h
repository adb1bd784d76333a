#ifndef SYSTEM_H
#define SYSTEM_H
/* Runs what the command line names with the rounds it gives; all once without any. */
void system_run(void);
#endif
