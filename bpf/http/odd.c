// What is rare in a line, byte by byte: lists of lengths, white space of any amount, folded lines, chunk sizes with many zeros. The bytes are s->at to s->to;
// each of the functions below takes one and says whether it wants another.

static __always_inline u32 is_space(u8 b) { return b == ' ' || b == '\t'; }

static __always_inline u32 chunk_byte(struct http_scratch *s, struct http_direction *h, u8 b) {
  u8 l = b | 32;
  u64 v = V(h->length);
  u32 digit = b - '0', letter = l - 'a';
  if (digit > 9 && letter > 5) {
    if (b != ';' && !is_space(b)) fail(h, HTTP_COUNT_resync_syntax);
    return 0;
  }
  if (v >> 54) { fail(h, HTTP_COUNT_resync_syntax); return 0; }
  V(h->length) = v << 4 | (digit < 10 ? digit : letter + 10);
  V(s->nl) = 1;                                                 // there are digits
  return 1;
}

// RFC 9110, 8.6: a list of equal numbers is that number.
static __always_inline u32 length_byte(struct http_scratch *s, struct http_direction *h, u8 b) {
  u32 state = V(s->k), digit = b - '0';                         // 0: before digits, 1: in them, 2: behind them
  u64 v = V(s->out.m.flow);                                     // the value so far
  if (is_space(b)) { if (state == 1) V(s->k) = 2; return 1; }
  V(s->nl) = 1;                                                 // something was there
  if (V(h->header) & UNFINISHED) {                              // after all
    V(h->header) = H_LENGTH;
    V(h->seen) &= ~CONFLICT;
  }
  if (b == ',' && state) {
    content_length(h, v);
    V(s->k) = 0;
    V(s->out.m.flow) = 0;
    return 1;
  }
  if (digit > 9 || state == 2 || v >> 58) {
    V(h->seen) |= CONFLICT;
    V(s->nl) = 0;
    return 0;
  }
  V(s->out.m.flow) = v * 10 + digit;
  V(s->k) = 1;
  return 1;
}

// Where the last coding of a list, or a text, begins and ends.
static __always_inline u32 word_byte(struct http_scratch *s, u8 b, u32 at) {
  if (V(s->id) == H_CODING && b == ',') { V(s->k) = 0; return 1; }
  if (is_space(b)) return 1;
  if (!V(s->k)) { V(s->start) = at; V(s->k) = 1; }
  V(s->nl) = at + 1;
  return 1;
}

int http_odd_byte(struct __sk_buff *unused) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  struct http_direction *h = http_of(&s->d);
  u32 at = V(s->at), id = V(s->id);
  if (at >= V(s->to)) return 0;
  V(s->at) = at + 1;
  u8 b = s->b[at & HTTP_MASK];
  if (id == H_CHUNK) return chunk_byte(s, h, b);
  if (id == H_LENGTH) return length_byte(s, h, b);
  return word_byte(s, b, at);
}

static __always_inline void odd_chunk(struct http_scratch *s, struct http_direction *h) {
  if (!V(s->nl)) fail(h, HTTP_COUNT_resync_syntax);
  V(h->phase) = CHUNK_EXTENSION;
  if (!V(s->cut)) chunk_begins(s, &s->d);
}

static __always_inline void odd_length(struct http_scratch *s, struct http_direction *h) {
  if (!V(s->nl)) return;
  if (V(s->k)) content_length(h, V(s->out.m.flow));
  else V(h->seen) |= CONFLICT;                                  // ends with a comma
}

// The last coding of the list decides (RFC 9112, 6.3).
static __always_inline void odd_coding(struct http_scratch *s, struct http_direction *h) {
  u32 start = V(s->start), end = V(s->nl), seen = V(h->seen) & ~(CHUNKED | CODED);
  if (!end) return;
  u64 v = load8(&s->b[start & HTTP_MASK]) | LOWER;
  V(h->seen) = seen | (end - start == 7 && v << 8 == W8(0, 'c', 'h', 'u', 'n', 'k', 'e', 'd') ? CHUNKED : CODED);
}

static __always_inline void odd_text(struct http_scratch *s, struct http_direction *h) {
  if (!V(s->k)) return;
  V(s->from) = V(s->start);
  V(s->to) = V(s->nl);
  text(s, h);
}

int http_odd(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  struct http_direction *h = http_of(&s->d);
  u32 id = V(s->id);
  if (V(h->cause)) goto done;
  if (id == H_CHUNK) {
    V(h->length) = 0;
    V(s->from) = V(s->start);
    V(s->to) = V(s->eol);
  }
  if (V(s->to) - V(s->from) > HTTP_CARRY) {
    if (id == H_LENGTH) { V(h->seen) |= CONFLICT; goto done; }
    if (id == H_CODING) V(s->from) = V(s->to) - HTTP_CARRY;
  }
  V(s->at) = V(s->from);
  V(s->k) = V(s->nl) = V(s->start) = 0;
  V(s->out.m.flow) = 0;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CARRY; i++) if (!call_http_odd_byte()) break;
  if (id == H_CHUNK) odd_chunk(s, h);
  else if (id == H_LENGTH) odd_length(s, h);
  else if (id == H_CODING) odd_coding(s, h);
  else odd_text(s, h);
done:
  V(s->id) = 0;
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
