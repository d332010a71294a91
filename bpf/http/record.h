// One HTTP exchange as it leaves the kernel. Described once, here; sources/http/record.py is its numpy twin and a test holds them together.
#define HTTP_RECORD_VERSION 1
#ifndef HTTP_TARGET
#define HTTP_TARGET 256          // bytes of the request target that are kept, a multiple of 8, at most 1024
#endif
#ifndef HTTP_SLOTS
#define HTTP_SLOTS 0             // configured request headers that are kept, at most 4
#endif
#define HTTP_TEXT 64             // bytes kept of Host, tracestate and each configured header
#define HTTP_AGENT 88            // bytes kept of User-Agent
#define HTTP_LINE (HTTP_TARGET + 24)

struct http_record {
  u64 request_start_ns, request_end_ns, response_start_ns, response_end_ns;   // CLOCK_MONOTONIC, or the capture's own time; 0: not seen
  u64 request_body, response_body;                                            // bytes as transferred, without framing
  u32 request_head, response_head;                                            // bytes from the start line to the empty line, both included
  u32 request_seq, response_seq, request_ack;                                 // TCP numbers: first byte of each message; the request's acknowledgement
  u32 tap;                                                                    // ifindex of the interface
  u8 client_address[16], server_address[16];                                  // IPv4 as v4-mapped IPv6
  u16 client_port, server_port;                                               // host byte order
  u16 status, flags;                                                          // status 0: none was seen. flags: HTTP_FLAG_*
  u8 method, error, side, direction;                                          // HTTP_METHOD_*, HTTP_ERROR_*, HTTP_SIDE_*, HTTP_DIRECTION_*
  u8 minor, method_len, host_len, agent_len;                                  // HTTP/1.minor; lengths on the wire, 255: longer. A kept text is cut at its field
  u16 target_len, target_wire_len;                                            // kept, on the wire (65535: longer)
  u8 tracestate_len, trace_flags, traced, traceparent_version;                // traced: 1 when the three below are a valid traceparent
  u8 slot_len[4];
  u32 number;                                                                 // of the request in its stream
  u8 trace_id[16], parent_id[8];
  u8 host[HTTP_TEXT];
  u8 tracestate[HTTP_TEXT];
  u8 agent[HTTP_AGENT];
#if HTTP_SLOTS
  u8 slots[HTTP_SLOTS][HTTP_TEXT];
#endif
  u8 line[HTTP_LINE];                                                         // method, one space, target; the rest is zero
};

enum { HTTP_FLAG_TARGET_CUT = 1, HTTP_FLAG_UNCERTAIN_END = 2, HTTP_FLAG_UNCERTAIN_SIZE = 4, HTTP_FLAG_RESYNCHRONISED = 8,
       HTTP_FLAG_PIPELINED = 16, HTTP_FLAG_INTERIM = 32 };
enum { HTTP_ERROR_NONE, HTTP_ERROR_RESET, HTTP_ERROR_CLOSED };
enum { HTTP_SIDE_NONE, HTTP_SIDE_CLIENT, HTTP_SIDE_SERVER };
enum { HTTP_DIRECTION_UNKNOWN, HTTP_DIRECTION_ARRIVED, HTTP_DIRECTION_LEFT };  // of the request at the tap: it arrived from the device, it left to it
enum { HTTP_METHOD_OTHER, HTTP_METHOD_GET, HTTP_METHOD_HEAD, HTTP_METHOD_POST, HTTP_METHOD_PUT, HTTP_METHOD_DELETE, HTTP_METHOD_CONNECT,
       HTTP_METHOD_OPTIONS, HTTP_METHOD_TRACE, HTTP_METHOD_PATCH, HTTP_METHOD_QUERY };

_Static_assert(HTTP_TARGET % 8 == 0 && HTTP_TARGET >= 64 && HTTP_TARGET <= 1024 && HTTP_SLOTS <= 4, "limits of the record");
_Static_assert(sizeof(struct http_record) == 376 + 64 * HTTP_SLOTS + HTTP_LINE, "no padding that nobody wrote");
