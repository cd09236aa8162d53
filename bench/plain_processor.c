/* A processor with AVX-512, AMX, VNNI and bfloat16 shown to a program as one that has AVX2 at best.
 *
 *     cc -O2 -shared -fPIC -o plain_processor.so bench/plain_processor.c
 *     LD_PRELOAD=./plain_processor.so python bench/int8_backends.py
 *
 * Libraries choose their kernels by the instruction CPUID. Linux lets a process have it fault (x86-64, and a processor
 * whose flags in /proc/cpuinfo have cpuid_fault); the handler here answers it, without what newer processors have. So
 * every library of the process is told the same, also those that no environment variable reaches.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif
#define BIT(number) (UINT32_C(1) << (number))

static struct sigaction before;

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)registers[REG_RIP];
    if (info->si_code == SI_KERNEL && at[0] == 0x0F && at[1] == 0xA2) { /* CPUID */
        uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX];
        uint32_t a = leaf, b = 0, c = part, d = 0;
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1UL);
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL);
        if (leaf == 7 && part == 0) {
            /* AVX-512 of all kinds; then GFNI, VAES and VPCLMULQDQ as well; then AMX. */
            b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            c &= ~(BIT(1) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14));
            d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
        } else if (leaf == 7 && part == 1) { /* AVX-VNNI, bfloat16, and what came after */
            a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
            b = c = d = 0;
        } else if (leaf == 0x1D || leaf == 0x1E || leaf == 0x24) { /* tiles, AVX10 */
            a = b = c = d = 0;
        }
        registers[REG_RAX] = a;
        registers[REG_RBX] = b;
        registers[REG_RCX] = c;
        registers[REG_RDX] = d;
        registers[REG_RIP] += 2;
    } else if ((before.sa_flags & SA_SIGINFO) && before.sa_sigaction) {
        before.sa_sigaction(number, info, context);
    } else {
        signal(SIGSEGV, SIG_DFL); /* the instruction faults again, and ends the process as ever */
    }
}

__attribute__((constructor(101))) static void start(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL) != 0) {
        static const char said[] = "plain_processor: this processor or kernel does not let CPUID fault\n";
        (void)!write(STDERR_FILENO, said, sizeof said - 1);
        _exit(97);
    }
}
