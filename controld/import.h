/*
 * keytoll-controld import-litellm: reads the tables of a LiteLLM proxy, read-only and in
 * batches, into ours.  Every key keeps its hash, so no client changes anything.  Each
 * batch is one transaction with the mark of how far it got: it may be stopped and run
 * again at any time, also against a LiteLLM that is still in use.
 */

#ifndef CTL_IMPORT_H
#define CTL_IMPORT_H


/*
 * `dsn` is LiteLLM's PostgreSQL.  With `dry` everything is tried and nothing kept.
 * Prints what was read, imported and left out.  0, or -1 after a message on stderr.
 */
int import_litellm(const char *dsn, int dry);


#endif
