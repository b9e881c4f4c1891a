// Units of one program that were compiled for different instruction sets do not link.
#pragma once

#if defined(__FAST_MATH__)
#error "guild needs IEEE arithmetic: -ffast-math removes its NaN and infinity checks. Compile without it."
#endif

// Inline functions exist in every unit, and the linker keeps one of each: if a unit compiled with -mavx512f brought the
// one that is kept, the whole program would need such a processor. guild chooses its kernels at run time and needs no
// such flags; if they are used, then for all units alike. Each unit defines one absolute symbol that says for which
// instruction sets it was compiled. Linkers (GNU ld, gold, lld) accept several definitions of the same value and refuse
// different ones. Link-time optimization by GCC does not look at such symbols.
#if defined(__ELF__) && defined(__x86_64__) && !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)

// One digit a group, highest member first.
#if defined(__AVX512BF16__)
#define GUILD_MACHINE_AVX512 "4"
#elif defined(__AVX512BW__) || defined(__AVX512DQ__) || defined(__AVX512VL__)
#define GUILD_MACHINE_AVX512 "2"
#elif defined(__AVX512F__)
#define GUILD_MACHINE_AVX512 "1"
#else
#define GUILD_MACHINE_AVX512 "0"
#endif
#if defined(__AVX2__)
#define GUILD_MACHINE_AVX "2"
#elif defined(__AVX__)
#define GUILD_MACHINE_AVX "1"
#else
#define GUILD_MACHINE_AVX "0"
#endif
#if defined(__FMA__) && defined(__F16C__)
#define GUILD_MACHINE_FMA "3"
#elif defined(__FMA__)
#define GUILD_MACHINE_FMA "2"
#elif defined(__F16C__)
#define GUILD_MACHINE_FMA "1"
#else
#define GUILD_MACHINE_FMA "0"
#endif
#if defined(__SSE4_2__) && defined(__BMI2__)
#define GUILD_MACHINE_SSE "3"
#elif defined(__SSE4_2__)
#define GUILD_MACHINE_SSE "2"
#elif defined(__SSE4_1__) || defined(__SSSE3__) || defined(__SSE3__)
#define GUILD_MACHINE_SSE "1"
#else
#define GUILD_MACHINE_SSE "0"
#endif

__asm__(
    ".globl guild_units_have_the_same_machine_flags\n"
    ".hidden guild_units_have_the_same_machine_flags\n"
    ".set guild_units_have_the_same_machine_flags, 1" GUILD_MACHINE_AVX512 GUILD_MACHINE_AVX GUILD_MACHINE_FMA
        GUILD_MACHINE_SSE "\n");

#undef GUILD_MACHINE_AVX512
#undef GUILD_MACHINE_AVX
#undef GUILD_MACHINE_FMA
#undef GUILD_MACHINE_SSE
#endif
