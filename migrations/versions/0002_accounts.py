"""Accounts, credentials, sharing, and the chain of the audit trail.

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from modelyard.domain.accounts import skeleton
from modelyard.domain.ids import label, new_id

revision: str = '0002'
down_revision: str | None = '0001'
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table('builds', schema=None) as batch_op:
        batch_op.add_column(sa.Column('cause', sa.JSON(), nullable=True))

    op.create_table('accounts',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('username', sa.String(length=40), nullable=False),
    sa.Column('skeleton', sa.String(length=80), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_accounts')),
    sa.UniqueConstraint('skeleton', name=op.f('uq_accounts_skeleton')),
    sa.UniqueConstraint('username', name=op.f('uq_accounts_username'))
    )
    op.create_table('audit_head',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('seq', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('chain', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_head'))
    )
    op.create_table('revocations',
    sa.Column('subject', sa.String(length=80), nullable=False),
    sa.Column('epoch', sa.Integer(), nullable=False),
    sa.Column('until', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('subject', name=op.f('pk_revocations'))
    )
    with op.batch_alter_table('revocations', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_revocations_until'), ['until'], unique=False)

    op.create_table('signing_keys',
    sa.Column('kid', sa.String(length=40), nullable=False),
    sa.Column('jwk', sa.JSON(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('signs_from', sa.Float(), nullable=False),
    sa.Column('ends_at', sa.Float(), nullable=True),
    sa.PrimaryKeyConstraint('kid', name=op.f('pk_signing_keys'))
    )
    op.create_table('api_keys',
    sa.Column('id', sa.String(length=12), nullable=False),
    sa.Column('account_id', sa.String(length=36), nullable=False),
    sa.Column('name', sa.String(length=100), nullable=False),
    sa.Column('secret_sha256', sa.String(length=64), nullable=False),
    sa.Column('scopes', sa.JSON(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('expires_at', sa.Float(), nullable=True),
    sa.Column('last_used_at', sa.Float(), nullable=True),
    sa.Column('revoked_at', sa.Float(), nullable=True),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_api_keys_account_id_accounts')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys'))
    )
    with op.batch_alter_table('api_keys', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_api_keys_account_id'), ['account_id'], unique=False)

    op.create_table('passwords',
    sa.Column('account_id', sa.String(length=36), nullable=False),
    sa.Column('hash', sa.Text(), nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_passwords_account_id_accounts')),
    sa.PrimaryKeyConstraint('account_id', name=op.f('pk_passwords'))
    )
    op.create_table('sessions',
    sa.Column('id', sa.String(length=36), nullable=False),
    sa.Column('account_id', sa.String(length=36), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('secret_sha256', sa.String(length=64), nullable=True),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('rotated_at', sa.Float(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('expires_at', sa.Float(), nullable=False),
    sa.Column('revoked_at', sa.Float(), nullable=True),
    sa.Column('reason', sa.String(length=40), nullable=True),
    sa.Column('agent', sa.String(length=200), nullable=False),
    sa.Column('by_link', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_sessions_account_id_accounts')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sessions'))
    )
    with op.batch_alter_table('sessions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_sessions_account_id'), ['account_id'], unique=False)

    op.create_table('shares',
    sa.Column('model_id', sa.String(length=36), nullable=False),
    sa.Column('username', sa.String(length=40), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    # Whoever knows of no shares removes models all the same: the release before this one.
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_shares_model_id_models'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_id', 'username', name=op.f('pk_shares'))
    )
    op.create_table('tickets',
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('purpose', sa.String(length=16), nullable=False),
    sa.Column('account_id', sa.String(length=36), nullable=True),
    sa.Column('subject', sa.String(length=200), nullable=False),
    sa.Column('expires_at', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], name=op.f('fk_tickets_account_id_accounts')),
    sa.PrimaryKeyConstraint('sha256', name=op.f('pk_tickets'))
    )
    with op.batch_alter_table('tickets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_tickets_account_id'), ['account_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_tickets_expires_at'), ['expires_at'], unique=False)

    with op.batch_alter_table('audit', schema=None) as batch_op:
        batch_op.add_column(sa.Column('credential', sa.String(length=80), nullable=False, server_default=""))
        batch_op.add_column(sa.Column('result', sa.String(length=40), nullable=False, server_default="done"))
        batch_op.add_column(sa.Column('address', sa.String(length=45), nullable=False, server_default=""))
        batch_op.add_column(sa.Column('chain', sa.String(length=64), nullable=False, server_default=""))

    with op.batch_alter_table('models', schema=None) as batch_op:
        batch_op.add_column(sa.Column('public', sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column('access_changed_at', sa.Float(), nullable=False, server_default='0'))
        batch_op.create_index(batch_op.f('ix_models_access_changed_at'), ['access_changed_at'], unique=False)
        batch_op.add_column(sa.Column('label', sa.String(length=33), nullable=True))

    with op.batch_alter_table('versions', schema=None) as batch_op:
        batch_op.create_index('ix_versions_state_purge', ['state', 'purge', 'since'], unique=False)

    with op.batch_alter_table('instances', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_instances_retired_at'), ['retired_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_instances_state'), ['state'], unique=False)

    op.execute(sa.text("INSERT INTO audit_head (id, seq, chain) SELECT 1, COALESCE(MAX(seq), 0), '' FROM audit"))
    _label_models()
    _make_accounts_of_owners()


_ANY_LABEL = {'sqlite': '(lower(hex(randomblob(16))))', 'postgresql': "replace(cast(gen_random_uuid() as text), '-', '')"}
"""The label of a model whose maker knows of none, the release before this one: nobody guesses it either."""


def _label_models() -> None:
    models = sa.table('models', sa.column('id'), sa.column('name'), sa.column('label'))
    connection = op.get_bind()
    for model_id, name in connection.execute(sa.select(models.c.id, models.c.name)).all():
        connection.execute(models.update().where(models.c.id == model_id).values(label=label(name, model_id)))
    with op.batch_alter_table('models', schema=None) as batch_op:
        batch_op.alter_column('label', nullable=False, server_default=sa.text(_ANY_LABEL[connection.dialect.name]))
        batch_op.create_unique_constraint(batch_op.f('uq_models_label'), ['label'])


def _make_accounts_of_owners() -> None:
    """Whoever has a model gets an account without a log-in; names that read alike were allowed before, and stay."""
    connection = op.get_bind()
    accounts = sa.table(
        'accounts',
        *(sa.column(name) for name in ('id', 'username', 'skeleton', 'role', 'state', 'since', 'epoch', 'created_at')),
    )
    taken: set[str] = set()
    for owner, created_at in connection.execute(sa.text('SELECT owner, MIN(created_at) FROM models GROUP BY owner ORDER BY 2')).all():
        shape = skeleton(owner)
        if shape in taken:
            shape = f'{shape}!{new_id()}'
        taken.add(shape)
        row = {'id': new_id(), 'username': owner, 'skeleton': shape, 'role': 'member', 'state': 'active'}
        connection.execute(accounts.insert().values(**row, since=created_at, epoch=0, created_at=created_at))


def downgrade() -> None:
    with op.batch_alter_table('builds', schema=None) as batch_op:
        batch_op.drop_column('cause')

    with op.batch_alter_table('instances', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_instances_state'))
        batch_op.drop_index(batch_op.f('ix_instances_retired_at'))

    with op.batch_alter_table('versions', schema=None) as batch_op:
        batch_op.drop_index('ix_versions_state_purge')

    with op.batch_alter_table('models', schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f('uq_models_label'), type_='unique')
        batch_op.drop_column('label')
        batch_op.drop_index(batch_op.f('ix_models_access_changed_at'))
        batch_op.drop_column('access_changed_at')
        batch_op.drop_column('public')

    with op.batch_alter_table('audit', schema=None) as batch_op:
        batch_op.drop_column('chain')
        batch_op.drop_column('address')
        batch_op.drop_column('result')
        batch_op.drop_column('credential')

    with op.batch_alter_table('tickets', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_tickets_expires_at'))
        batch_op.drop_index(batch_op.f('ix_tickets_account_id'))

    op.drop_table('tickets')
    op.drop_table('shares')
    with op.batch_alter_table('sessions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_sessions_account_id'))

    op.drop_table('sessions')
    op.drop_table('passwords')
    with op.batch_alter_table('api_keys', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_api_keys_account_id'))

    op.drop_table('api_keys')
    op.drop_table('signing_keys')
    with op.batch_alter_table('revocations', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_revocations_until'))

    op.drop_table('revocations')
    op.drop_table('audit_head')
    op.drop_table('accounts')
