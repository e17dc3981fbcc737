/* The few MQTT 5 packets that a load generator and an echo need, QoS 1 only, loopback only.
 *
 * Floor code: no TLS, no reconnect, no keep-alive. Any surprise ends the process with a sentence
 * on stderr and exit code 2, so that a broken run never becomes a figure. */
#ifndef MQTT_WIRE_H
#define MQTT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *bytes; /* unread bytes are [head, tail) */
    size_t head, tail, capacity;
} buffer;

typedef struct {
    int fd;
    buffer in, out;
    unsigned receive_maximum; /* the broker's: QoS 1 publishes that may be in flight towards it */
} connection;

enum { PACKET_CONNACK = 2, PACKET_PUBLISH = 3, PACKET_PUBACK = 4, PACKET_SUBACK = 9, PACKET_DISCONNECT = 14 };

typedef struct {
    uint8_t type, flags;
    const uint8_t *body, *end; /* valid until the next mqtt_receive */
} packet;

typedef struct {
    const uint8_t *topic, *payload;
    size_t topic_length, payload_length;
    unsigned packet_id; /* 0: QoS 0 */
} publish;

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t monotonic_ns(void);

/* Both block until the broker has answered. mqtt_make_nonblocking comes after them. */
connection *mqtt_connect(int port, const char *client_id);
void mqtt_subscribe(connection *c, const char *filter);
void mqtt_make_nonblocking(connection *c);

/* Appending never writes to the socket; mqtt_flush does, once for everything appended. */
void mqtt_append_publish(connection *c, const void *topic, size_t topic_length, const void *payload,
                         size_t payload_length, unsigned packet_id);
void mqtt_append_puback(connection *c, unsigned packet_id);
void mqtt_flush(connection *c);
static inline bool mqtt_has_unsent(const connection *c) { return c->out.head < c->out.tail; }

/* Reads what is there; then mqtt_next yields packet after packet until it returns false. */
void mqtt_receive(connection *c);
bool mqtt_next(connection *c, packet *p);
publish mqtt_parse_publish(const packet *p);

/* Packet identifiers run 1..65535 and around; 0 is forbidden by the standard. */
static inline unsigned next_packet_id(unsigned id) { return id % 65535u + 1u; }

#endif
