redis.register_function("kt_admit", kt_admit)
redis.register_function("kt_known", kt_known)
redis.register_function("kt_settle", kt_settle)
redis.register_function("kt_settle_groups", kt_settle)      -- of older ones there is none
redis.register_function("kt_block_end", kt_block_end)
redis.register_function("kt_renew", kt_renew)
redis.register_function("kt_sweep", kt_sweep)
redis.register_function("kt_policy_set", kt_policy_set)
redis.register_function("kt_policy_del", kt_policy_del)
redis.register_function("kt_used_set", kt_used_set)
redis.register_function("kt_adjust", kt_adjust)
redis.register_function("kt_registry", kt_registry)
redis.register_function{ function_name = "kt_state", callback = kt_state,
                         flags = { "no-writes" } }
