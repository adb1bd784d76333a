#ifndef KERNELS_H
#define KERNELS_H
/* Runs what the command line names, `chase=` and so on, with the rounds it gives; all once without any. */
void kernels_run(void);
#endif
