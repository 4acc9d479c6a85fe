/* Hashes: XXH3 for manifests and tables, SHA-256 (libmd) for the data split rule. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

uint64_t hash_bytes(const void *p, size_t n); /* XXH3 64 */

struct hash_stream;
struct hash_stream *hash_new(void); /* XXH3 128, NULL: out of memory */
void hash_add(struct hash_stream *h, const void *p, size_t n);
void hash_hex(struct hash_stream *h, char out[33]);
void hash_free(struct hash_stream *h);
int hash_file(const char *path, char out[33], struct err *e); /* XXH3 128, hex */

void hash_sha256(const void *p, size_t n, unsigned char out[32]);

#endif
