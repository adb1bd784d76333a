#ifndef MOVES_H
#define MOVES_H
/* Runs what the command line names with the rounds it gives; all once without any. */
void moves_run(void);
#endif
