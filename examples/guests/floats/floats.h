#ifndef FLOATS_H
#define FLOATS_H
/* Runs what the command line names with the rounds it gives; all once without any. */
void floats_run(void);
#endif
