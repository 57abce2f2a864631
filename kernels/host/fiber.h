// Fibers: one stack for each CUDA thread of a block, switched by hand, so that a thread can stop at a barrier in the
// middle of a function and the next one runs. All of them share one thread of the operating system.
//
// On x86-64 a switch saves the six registers that the calling convention lets a function keep: about 2 ns. Elsewhere
// POSIX ucontext does it, which asks the kernel for the signal mask every time: about 300 ns.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace host {

constexpr size_t STACK = 256 * 1024, PAGE = 4096;  // address space; pages are taken when they are touched

#ifdef __x86_64__
extern "C" void minunet_switch_stacks(void** save, void* load);
asm(R"(
    .text
    .hidden minunet_switch_stacks
    .globl minunet_switch_stacks
    .type minunet_switch_stacks, @function
minunet_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size minunet_switch_stacks, .-minunet_switch_stacks
)");
using Context = void*;
inline void switch_context(Context* save, Context* load) { minunet_switch_stacks(save, *load); }
inline void make_context(Context* context, char* stack, void (*entry)()) {
    // What the first switch pops: six registers of no meaning, then the entry as the return address. A function is
    // entered with the stack 8 bytes off a multiple of 16.
    uintptr_t* top = reinterpret_cast<uintptr_t*>(stack + STACK - 64);
    *top = reinterpret_cast<uintptr_t>(entry);
    *context = top - 6;
}
#else
using Context = ucontext_t;
inline void switch_context(Context* save, Context* load) { swapcontext(save, load); }
inline void make_context(Context* context, char* stack, void (*entry)()) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
}
#endif

struct Fiber {
    Context context;
    char* stack = nullptr;
    bool fresh = true;  // starts at the entry; otherwise it goes on where it stopped
};

inline void start(Fiber& fiber, void (*entry)()) {
    if (!fiber.stack) {
        void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            perror("minunet: no memory for the stack of an emulated thread");
            abort();
        }
        mprotect(memory, PAGE, PROT_NONE);  // an overflow faults here instead of writing into a neighbour
        fiber.stack = static_cast<char*>(memory);
    }
    if (fiber.fresh) make_context(&fiber.context, fiber.stack, entry);
    fiber.fresh = false;
}

}  // namespace host
