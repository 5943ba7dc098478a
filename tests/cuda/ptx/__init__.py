"""Runs PTX, as compilers write it for NVIDIA's cards, on the processor, and watches what it does.

    text        a kernel's text as instructions
    values      operands as arrays, an element a thread; rounding
    arithmetic  what instructions compute
    memory      memory, and who touched it when: bounds, alignment, unwritten words, races
    together    what the threads of a warp or a block do together
    machine     a kernel as a program, and threads going through it
    counts      instructions, sectors and banks
    card        the machine in place of a card, for plans of netdsl

An instruction that is not known is an error, and so is whatever PTX's manual leaves undefined.
"""
