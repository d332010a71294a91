// Words of eight bytes instead of loops: the verifier walks every turn of a loop, so the fewer the better.
#define V(x) (*(volatile __typeof__(x) *)&(x))                  // state in memory, so that the verifier's states merge
#define barrier_var(v) asm volatile("" : "+r"(v))
// Rare branches are compiled behind all others: what runs for every packet lies close together, for the instruction cache.
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif
#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#define ONES 0x0101010101010101ULL
#define LOWER (0x20 * ONES)
#define HIGH (0x80 * ONES)
#define W8(a, b, c, d, e, f, g, h) ((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | (u64)(f) << 40 | \
                                    (u64)(g) << 48 | (u64)(h) << 56)
#define W4(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)
#define W7(a, b, c, d, e, f, g) W8(a, b, c, d, e, f, g, 0)

// Through an argument: clang turns *(u64 *)&s->b[i] into eight byte loads, for it knows that b is not aligned.
static __always_inline u64 load8(void *p) { return *(volatile u64 *)p; }
static __always_inline u32 load4(void *p) { return *(volatile u32 *)p; }
static __always_inline u16 load2(void *p) { return *(volatile u16 *)p; }
static __always_inline void store8(void *p, u64 v) { *(volatile u64 *)p = v; }

// Index of the lowest marked byte; marks are 0x80 bits.
static __always_inline u32 first(u64 m) { m &= -m; return ((m >> 7) * 0x0001020304050607ULL) >> 56; }

// Marks the bytes of w that equal c: exact up to and with the lowest one. `raw_equal`: the same among bits that mean nothing, until & HIGH.
static __always_inline u64 raw_equal(u64 w, u8 c) { w ^= c * ONES; return (w - ONES) & ~w; }
static __always_inline u64 bytes_equal(u64 w, u8 c) { return raw_equal(w, c) & HIGH; }

// Marks the bytes of w that are neither space nor tab, exactly.
static __always_inline u64 not_space(u64 w) {
  u64 a = w ^ ' ' * ONES, b = w ^ '\t' * ONES;
  return (((a & ~HIGH) + ~HIGH) | a) & (((b & ~HIGH) + ~HIGH) | b) & HIGH;
}

// A macro: as an inline function its loop would be unrolled by four, before the number of words is known.
#define copy8(to, from, words) do { u64 *to_ = (void *)(to), *from_ = (void *)(from); \
    _Pragma("unroll") for (u32 k_ = 0; k_ < (words); k_++) V(to_[k_]) = from_[k_]; } while (0)
#define zero8(to, words) do { u64 *to_ = (void *)(to); \
    _Pragma("unroll") for (u32 k_ = 0; k_ < (words); k_++) V(to_[k_]) = 0; } while (0)

// Marks the bytes that are no decimal digit.
static __always_inline u64 not_digit(u64 x) { x ^= '0' * ONES; return (((x & ~HIGH) + 0x76 * ONES) | x) & HIGH; }

// The first n digits of x, 1 to 7, behind as many zeros as make them eight.
static __always_inline u64 first_digits(u64 x, u32 n) { return x << (64 - 8 * n & 63) | '0' * ONES >> 8 * n; }

// Decimal value of 8 digits, the first in the lowest byte. *bad gets the marks of what is no digit.
static __always_inline u64 decimal8(u64 t, u64 *bad) {
  *bad |= not_digit(t);
  t &= 0x0f * ONES;
  t = (t * 10 + (t >> 8)) & 0x00ff00ff00ff00ffULL;
  t = (t * 100 + (t >> 16)) & 0x0000ffff0000ffffULL;
  return (t * 10000 + (t >> 32)) & 0xffffffff;
}

// Marks the bytes that are no hexadecimal digit.
static __always_inline u64 not_hex(u64 x) {
  u64 digit = not_digit(x), y = (x | LOWER) ^ 0x60 * ONES, letter = (((y & ~HIGH) + 0x79 * ONES) | y);
  u64 none = ((y & ~HIGH) + 0x7f * ONES) ^ HIGH;                // 0x60 itself is no letter
  return digit & (letter | none) & HIGH;
}

// The eight hexadecimal digits of x, the first in the lowest byte, as a number.
static __always_inline u64 hex8(u64 x) {
  x = (x & 0x0f * ONES) + 9 * (x >> 6 & ONES);
  x = (x << 4 | x >> 8) & 0x00ff00ff00ff00ffULL;
  x = (x << 8 | x >> 16) & 0x0000ffff0000ffffULL;
  return (x << 16 | x >> 32) & 0xffffffff;
}
