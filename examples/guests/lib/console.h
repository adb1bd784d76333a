/* The console: COM1, a 16550 at 3F8h, polled. */
#ifndef CONSOLE_H
#define CONSOLE_H

#define COM1 0x3f8
#define UART_DATA (COM1 + 0)
#define UART_IER (COM1 + 1) /* interrupt enable */
#define UART_IIR (COM1 + 2) /* interrupt identification, read */
#define UART_FCR (COM1 + 2) /* FIFO control, write */
#define UART_LCR (COM1 + 3) /* line control */
#define UART_MCR (COM1 + 4) /* modem control */
#define UART_LSR (COM1 + 5) /* line status */
#define UART_SCR (COM1 + 7) /* scratch: eight bits that do nothing */

#define UART_IER_THRE 0x02 /* interrupt when the transmitter holding register is empty */
#define UART_IIR_THRE 0x02
#define UART_IIR_NONE 0x01
#define UART_LSR_THRE 0x20
#define UART_LSR_TEMT 0x40 /* the shift register is empty too */
#define UART_FIFO_SIZE 16

#ifndef __ASSEMBLER__
/* 115200 baud, 8N1, FIFOs on, OUT2 set (on a PC it gates the interrupt line). */
void console_init(void);

/* Sends one byte, waiting for room. */
void console_put(char c);

/* Waits until everything sent has left. */
void console_drain(void);

/* printf with %s %c %u %x, the length l or ll for %x and l for %u, and a zero-padded width. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
#endif

#endif
