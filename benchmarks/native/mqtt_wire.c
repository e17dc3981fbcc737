#define _GNU_SOURCE
#include "mqtt_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RECEIVE_CHUNK_BYTES = 65536, FIRST_CAPACITY_BYTES = 1 << 20, OUR_RECEIVE_MAXIMUM = 65535 };

_Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

int64_t monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- buffers ---- */

static void buffer_reserve(buffer *b, size_t more) {
    if (b->head == b->tail) {
        b->head = b->tail = 0;
    }
    if (b->tail + more <= b->capacity) {
        return;
    }
    memmove(b->bytes, b->bytes + b->head, b->tail - b->head);
    b->tail -= b->head;
    b->head = 0;
    if (b->tail + more > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : FIRST_CAPACITY_BYTES;
        while (capacity < b->tail + more) {
            capacity *= 2;
        }
        b->bytes = realloc(b->bytes, capacity);
        if (!b->bytes) {
            die("out of memory: a buffer of %zu bytes", capacity);
        }
        b->capacity = capacity;
    }
}

static void put_u8(buffer *b, unsigned value) { b->bytes[b->tail++] = (uint8_t)value; }

static void put_u16(buffer *b, unsigned value) {
    put_u8(b, value >> 8);
    put_u8(b, value & 255);
}

static void put_bytes(buffer *b, const void *bytes, size_t n) {
    memcpy(b->bytes + b->tail, bytes, n);
    b->tail += n;
}

static void put_varint(buffer *b, size_t value) {
    do {
        unsigned digit = value & 127;
        value >>= 7;
        put_u8(b, value ? digit | 128 : digit);
    } while (value);
}

static unsigned get_u16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

/* False: not all bytes are there yet. */
static bool get_varint(const uint8_t **at, const uint8_t *end, size_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        if (*at >= end) {
            return false;
        }
        uint8_t digit = *(*at)++;
        *value |= (size_t)(digit & 127) << shift;
        if (!(digit & 128)) {
            return true;
        }
    }
    die("malformed packet: a length of more than four bytes");
}

/* ---- sending ---- */

void mqtt_append_publish(connection *c, const void *topic, size_t topic_length, const void *payload,
                         size_t payload_length, unsigned packet_id) {
    buffer *b = &c->out;
    buffer_reserve(b, topic_length + payload_length + 16);
    put_u8(b, PACKET_PUBLISH << 4 | 1 << 1);
    put_varint(b, 2 + topic_length + 2 + 1 + payload_length);
    put_u16(b, (unsigned)topic_length);
    put_bytes(b, topic, topic_length);
    put_u16(b, packet_id);
    put_u8(b, 0); /* no properties */
    put_bytes(b, payload, payload_length);
}

void mqtt_append_puback(connection *c, unsigned packet_id) {
    buffer_reserve(&c->out, 4);
    put_u8(&c->out, PACKET_PUBACK << 4);
    put_u8(&c->out, 2);
    put_u16(&c->out, packet_id);
}

void mqtt_flush(connection *c) {
    buffer *b = &c->out;
    while (b->head < b->tail) {
        ssize_t n = write(c->fd, b->bytes + b->head, b->tail - b->head);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n < 0) {
            die("writing to the broker failed: %s", strerror(errno));
        }
        b->head += (size_t)n;
    }
}

/* ---- receiving ---- */

void mqtt_receive(connection *c) {
    buffer *b = &c->in;
    buffer_reserve(b, RECEIVE_CHUNK_BYTES);
    ssize_t n = read(c->fd, b->bytes + b->tail, b->capacity - b->tail);
    if (n == 0) {
        die("the broker closed the connection");
    }
    if (n > 0) {
        b->tail += (size_t)n;
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        die("reading from the broker failed: %s", strerror(errno));
    }
}

bool mqtt_next(connection *c, packet *p) {
    buffer *b = &c->in;
    const uint8_t *at = b->bytes + b->head, *end = b->bytes + b->tail;
    if (at >= end) {
        return false;
    }
    uint8_t first = *at++;
    size_t length;
    if (!get_varint(&at, end, &length) || (size_t)(end - at) < length) {
        return false;
    }
    *p = (packet){.type = first >> 4, .flags = first & 15, .body = at, .end = at + length};
    b->head = (size_t)(p->end - b->bytes);
    if (p->type == PACKET_DISCONNECT) {
        die("the broker disconnected us, reason code %d", length ? at[0] : 0);
    }
    return true;
}

publish mqtt_parse_publish(const packet *p) {
    const uint8_t *at = p->body;
    if (p->end - at < 2 || (size_t)(p->end - at) < 2u + get_u16(at) + 3u) {
        die("malformed PUBLISH of %td bytes", p->end - p->body);
    }
    publish m = {.topic = at + 2, .topic_length = get_u16(at)};
    at += 2 + m.topic_length;
    if (p->flags >> 1 & 3) {
        m.packet_id = get_u16(at);
        at += 2;
    }
    size_t properties;
    if (!get_varint(&at, p->end, &properties) || (size_t)(p->end - at) < properties) {
        die("malformed PUBLISH: its properties are longer than the packet");
    }
    m.payload = at + properties;
    m.payload_length = (size_t)(p->end - m.payload);
    return m;
}

/* ---- connecting ---- */

static packet await_packet(connection *c, uint8_t type) {
    packet p;
    while (!mqtt_next(c, &p)) {
        mqtt_receive(c);
    }
    if (p.type != type) {
        die("expected a packet of type %d, got %d", type, p.type);
    }
    return p;
}

/* Bytes of a CONNACK property's value, or 0 for a UTF-8 string (two length bytes and the text). */
static size_t property_size(uint8_t id) {
    switch (id) {
    case 0x24: case 0x25: case 0x28: case 0x29: case 0x2A: return 1;
    case 0x13: case 0x21: case 0x22: return 2;
    case 0x11: case 0x27: return 4;
    default: return 0;
    }
}

static unsigned receive_maximum_of(const packet *connack) {
    const uint8_t *at = connack->body + 2;
    size_t length;
    if (!get_varint(&at, connack->end, &length) || (size_t)(connack->end - at) < length) {
        die("malformed CONNACK: its properties are longer than the packet");
    }
    const uint8_t *end = at + length;
    while (at < end) {
        uint8_t id = *at++;
        size_t size = property_size(id);
        if (end - at < 2 && size != 1) {
            die("malformed CONNACK: property %d is cut off", id);
        }
        if (id == 0x21) {
            return get_u16(at);
        }
        at += size ? size : 2u + get_u16(at);
    }
    return 65535; /* absent means no limit */
}

connection *mqtt_connect(int port, const char *client_id) {
    connection *c = calloc(1, sizeof *c);
    if (!c) {
        die("out of memory: a connection");
    }
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        die("connecting to a broker on 127.0.0.1:%d failed: %s", port, strerror(errno));
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* else Nagle, not the daemon, is measured */

    size_t id_length = strlen(client_id);
    buffer *b = &c->out;
    buffer_reserve(b, id_length + 64);
    put_u8(b, 1 << 4);
    put_varint(b, 6 + 1 + 1 + 2 + 4 + 2 + id_length);
    put_u16(b, 4);
    put_bytes(b, "MQTT", 4);
    put_u8(b, 5); /* protocol version */
    put_u8(b, 2); /* clean start */
    put_u16(b, 0); /* no keep-alive: runs last seconds */
    put_u8(b, 3);
    put_u8(b, 0x21);
    put_u16(b, OUR_RECEIVE_MAXIMUM);
    put_u16(b, (unsigned)id_length);
    put_bytes(b, client_id, id_length);
    mqtt_flush(c);

    packet connack = await_packet(c, PACKET_CONNACK);
    if (connack.end - connack.body < 3 || connack.body[1] != 0) {
        die("the broker refused the connection of %s, reason code %d", client_id,
            connack.end - connack.body > 1 ? connack.body[1] : -1);
    }
    c->receive_maximum = receive_maximum_of(&connack);
    return c;
}

void mqtt_subscribe(connection *c, const char *filter) {
    size_t length = strlen(filter);
    buffer *b = &c->out;
    buffer_reserve(b, length + 16);
    put_u8(b, 8 << 4 | 2);
    put_varint(b, 2 + 1 + 2 + length + 1);
    put_u16(b, 1); /* packet id */
    put_u8(b, 0); /* no properties */
    put_u16(b, (unsigned)length);
    put_bytes(b, filter, length);
    put_u8(b, 1 | 2 << 4); /* QoS 1, and no retained messages from an earlier run */
    mqtt_flush(c);
    packet suback = await_packet(c, PACKET_SUBACK);
    if (suback.end == suback.body || suback.end[-1] > 2) {
        die("the broker refused the subscription to %s", filter);
    }
}

void mqtt_make_nonblocking(connection *c) {
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) {
        die("making the socket non-blocking failed: %s", strerror(errno));
    }
}
