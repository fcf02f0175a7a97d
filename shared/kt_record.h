/*
 * Records of the gate's journal: length, checksum, type, fields.
 *
 *   "KTJ1"  u32 payload length  u32 CRC-32 of the payload  payload
 *   payload: type byte, then fields, each u32 length and bytes
 *
 * Integers are little-endian.  A torn tail fails its checksum and ends the
 * reading; everything before it is intact.
 */

#ifndef KT_RECORD_H
#define KT_RECORD_H


#include <stddef.h>
#include <stdint.h>

#include "kt_rc.h"


#define KT_RECORD_HEAD    12
#define KT_RECORD_FIELDS  8
#define KT_RECORD_MAX     (1 << 20)


typedef enum {
    KT_RECORD_DISPATCH = 'D',  /* rid, hold text                            */
    KT_RECORD_SETTLE = 'S'     /* the seven arguments of kt_settle          */
} kt_record_type_t;


typedef struct {
    const unsigned char  *data;
    size_t                len;
} kt_field_t;


typedef struct {
    kt_record_type_t  type;
    unsigned          nfields;
    kt_field_t        field[KT_RECORD_FIELDS];
} kt_record_t;


/* Bytes that kt_record_write() needs. */
size_t kt_record_size(const kt_record_t *rec);

/* KT_OK, KT_NOSPACE, or KT_RANGE over KT_RECORD_MAX; *n is what was written. */
keytoll_rc_t kt_record_write(const kt_record_t *rec, unsigned char *buf,
    size_t size, size_t *n);

/*
 * Reads the record at p.  Fields point into p.  KT_OK and *n bytes consumed;
 * KT_AGAIN when the buffer ends inside a record; KT_INVALID for a bad mark,
 * length or checksum.
 */
keytoll_rc_t kt_record_read(const unsigned char *p, size_t len,
    kt_record_t *rec, size_t *n);


#endif
