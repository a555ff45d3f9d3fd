using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.ExceptionServices;

namespace HpcBatchNorm.Data;

/// <summary>An image that could not be decoded.</summary>
/// <param name="Index">Which image of the data set.</param>
/// <param name="Name">Its name.</param>
/// <param name="Status">What is wrong with it.</param>
public sealed record BadImage(int Index, string Name, ImageStatus Status);

/// <summary>
/// Turns a data set into batches, on its own threads, ahead of their use. What a batch holds is a function of the options and the step alone: not of
/// the number of workers, the speed of the machine, or the steps taken before. Any step can be sought in constant time.
/// <see cref="Next"/>, <see cref="Seek"/> and <see cref="Dispose"/> are for one consuming thread.
/// </summary>
public sealed class BatchLoader : IDisposable
{
    private static readonly TimeSpan MostPatience = TimeSpan.FromSeconds(5);

    private readonly IImageSource _dataset;
    private readonly LoaderOptions _options;
    private readonly int _itemsPerEpoch, _stepImages;
    private readonly ShardTable _shards;
    private readonly Entry[] _ring;
    private readonly Thread[] _workers;
    private readonly StageClock[] _clocks;
    private readonly ConcurrentDictionary<int, ImageStatus> _badImages = new();

    // Guards everything below; pulsed on every change somebody may wait for.
    private readonly object _gate = new();
    private long _claimStep;
    private int _claimSlot;
    private long _firstUnreleased;
    private long _nextStep;
    private Batch? _lent;
    private int _inFlight;
    private long _lastFinish;
    private bool _paused;
    private bool _stopped;

    /// <summary>Starts loading at <paramref name="firstStep"/>.</summary>
    /// <exception cref="UserErrorException">A setting is out of its range, or the data set is smaller than one batch.</exception>
    public BatchLoader(IImageSource dataset, LoaderOptions options, long firstStep = 0)
    {
        options.Validate();
        ArgumentOutOfRangeException.ThrowIfNegative(firstStep);
        _dataset = dataset;
        _options = options;
        _itemsPerEpoch = dataset.Count;
        _stepImages = checked(options.BatchSize * options.Share.Parts);
        BatchesPerEpoch = options.DropLast ? _itemsPerEpoch / _stepImages : (_itemsPerEpoch - 1) / _stepImages + 1;
        if (BatchesPerEpoch == 0)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{dataset.Source}' has {dataset.Count} images, fewer than a batch of {_stepImages}; choose a smaller batch size."));
        }

        _shards = dataset.ShardsAreMixed
            ? new ShardTable(dataset.ShardStarts, dataset.Count)
            : new ShardTable(options.Seed, dataset.Count, options.ShardSize);
        _claimStep = _firstUnreleased = _nextStep = firstStep;
        _ring = new Entry[options.Prefetch + 1];
        for (int i = 0; i < _ring.Length; i++)
        {
            _ring[i] = new Entry(new Batch(this, options));
        }

        _clocks = new StageClock[options.Workers];
        _workers = new Thread[options.Workers];
        for (int i = 0; i < _workers.Length; i++)
        {
            StageClock clock = _clocks[i] = new StageClock();
            _workers[i] = new Thread(() => Work(clock)) { IsBackground = true, Name = $"hpcbn loader {i}" };
            _workers[i].Start();
        }
    }

    /// <summary>Batches of one epoch: floor(items / images of a step of all parts) with <see cref="LoaderOptions.DropLast"/>, else the ceiling.</summary>
    public int BatchesPerEpoch { get; }

    /// <summary>The step whose batch <see cref="Next"/> returns next.</summary>
    public long NextStep => _nextStep;

    /// <summary>The images found bad so far, prefetched batches included, in the order of the data set.</summary>
    public IReadOnlyList<BadImage> BadImages =>
        [.. _badImages.OrderBy(pair => pair.Key).Select(pair => new BadImage(pair.Key, _dataset.Name(pair.Key), pair.Value))];

    /// <summary>Where the workers' time has gone so far; what they are in the middle of is not counted yet.</summary>
    internal LoaderTimes Times
    {
        get
        {
            double[] seconds = new double[LoaderTimes.Stages];
            foreach (StageClock clock in _clocks)
            {
                clock.AddTo(seconds);
            }

            return new LoaderTimes(seconds);
        }
    }

    /// <summary>
    /// The batch of <see cref="NextStep"/>, after waiting for it if necessary. The batch returned before goes back to the loader.
    /// </summary>
    /// <exception cref="UserErrorException">An image is bad and the policy is to fail, or none is good, or the files cannot be read, or nothing has been finished for
    /// <see cref="LoaderOptions.StallSeconds"/>.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled before the batch was ready; <see cref="NextStep"/> stays.</exception>
    /// <exception cref="InvalidOperationException"><see cref="NextStep"/> has reached <see cref="LoaderOptions.EndStep"/>.</exception>
    public Batch Next(CancellationToken cancellationToken = default)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_stopped, this);
            if (_lent is not null)
            {
                Release(_lent);
            }

            if (_nextStep >= _options.EndStep)
            {
                throw new InvalidOperationException($"The loader ends at step {_options.EndStep}.");
            }

            Entry entry = EntryOf(_nextStep);
            double waited = 0;
            if (!entry.IsReady(_nextStep))
            {
                long start = Stopwatch.GetTimestamp();
                CancellationTokenRegistration registration = cancellationToken.UnsafeRegister(static loader => ((BatchLoader)loader!).Pulse(), this);
                try
                {
                    while (!entry.IsReady(_nextStep) && !cancellationToken.IsCancellationRequested)
                    {
                        WaitForWorkers(start);
                    }
                }
                finally
                {
                    // Not Dispose: that would wait for a callback that waits for the gate.
                    registration.Unregister();
                }

                waited = Stopwatch.GetElapsedTime(start).TotalSeconds;
                cancellationToken.ThrowIfCancellationRequested();
            }

            entry.Error?.Throw();
            entry.Batch.WaitSeconds = waited;
            _lent = entry.Batch;
            _nextStep++;
            return entry.Batch;
        }
    }

    /// <summary>Goes to any step: <c>epoch * BatchesPerEpoch + batch</c>. The batch lent out goes back to the loader.</summary>
    public void Seek(long step)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(step);
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_stopped, this);
            _paused = true;
            long start = Stopwatch.GetTimestamp();
            while (_inFlight > 0)
            {
                WaitForWorkers(start);
            }

            _lent = null;
            foreach (Entry entry in _ring)
            {
                entry.Step = -1;
            }

            _claimStep = _firstUnreleased = _nextStep = step;
            _claimSlot = 0;
            _paused = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Stops the workers and waits for them; not for one that does not come back from the disk within a few seconds.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _stopped = true;
            Monitor.PulseAll(_gate);
        }

        long start = Stopwatch.GetTimestamp();
        foreach (Thread worker in _workers)
        {
            TimeSpan left = MostPatience - Stopwatch.GetElapsedTime(start);
            worker.Join(left > TimeSpan.Zero ? left : TimeSpan.Zero);
        }
    }

    internal void Release(Batch batch)
    {
        lock (_gate)
        {
            if (ReferenceEquals(_lent, batch))
            {
                _lent = null;
                _firstUnreleased = _nextStep;
                Monitor.PulseAll(_gate);
            }
        }
    }

    /// <summary>Whether a batch is in the consumer's hands; asked on its thread, which alone takes and returns batches.</summary>
    internal bool HasLent(Batch batch) => ReferenceEquals(_lent, batch);

    private Entry EntryOf(long step) => _ring[step % _ring.Length];

    private void Pulse()
    {
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits, under the gate, for something to change; throws when nothing is finished for too long after <paramref name="start"/>.</summary>
    private void WaitForWorkers(long start)
    {
        if (_options.StallSeconds == 0)
        {
            Monitor.Wait(_gate);
            return;
        }

        TimeSpan limit = TimeSpan.FromSeconds(_options.StallSeconds), left = limit - Stopwatch.GetElapsedTime(Math.Max(start, _lastFinish));
        if (left <= TimeSpan.Zero)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"no image was finished for {limit.TotalSeconds:0.#} s while waiting for batch {_nextStep}: {string.Join("; ", _clocks.Select(Describe))}. ") +
                "Is the disk or network mount of the data set still there? loader-timeout sets how long to wait.");
        }

        // One millisecond more, so that a wait that ends in time does not have to be repeated for a rest of microseconds.
        Monitor.Wait(_gate, left + TimeSpan.FromMilliseconds(1));
    }

    private string Describe(StageClock clock, int worker)
    {
        string doing = clock.Stage == LoaderStage.Wait
            ? "waits for room"
            : $"{(clock.Stage == LoaderStage.Read ? "reads" : "works on")} '{_dataset.Name(clock.Image)}' of '{_dataset.Source}'";
        return FormattableString.Invariant($"worker {worker} {doing} since {clock.Elapsed.TotalSeconds:0.0} s");
    }

    private void Work(StageClock clock)
    {
        using var renderer = new ImageRenderer(_dataset, _options, clock);
        var order = new ImageOrder(_options.Shuffle, _options.Seed, _dataset.Count, _shards);
        while (TryClaim(out Entry entry, out int slot))
        {
            ExceptionDispatchInfo? error = null;
            bool good = false;
            try
            {
                good = Fill(renderer, order, entry.Batch, slot);
            }
            catch (Exception exception)
            {
                // Whatever it is, it belongs to the consumer of this batch.
                error = ExceptionDispatchInfo.Capture(exception);
            }

            clock.Enter(LoaderStage.Wait);
            Complete(entry, slot, good, error);
        }
    }

    private bool TryClaim(out Entry entry, out int slot)
    {
        lock (_gate)
        {
            while (!_stopped && (_paused || _claimStep >= _options.EndStep || _claimStep - _firstUnreleased >= _ring.Length))
            {
                Monitor.Wait(_gate);
            }

            entry = EntryOf(_claimStep);
            slot = _claimSlot;
            if (_stopped)
            {
                return false;
            }

            if (slot == 0)
            {
                int batchInEpoch = (int)(_claimStep % BatchesPerEpoch);
                entry.Begin(_claimStep, _options.DropLast ? _options.BatchSize : Math.Min(_options.BatchSize, _itemsPerEpoch - batchInEpoch * _options.BatchSize));
                entry.Batch.Epoch = _claimStep / BatchesPerEpoch;
                entry.Batch.LastOfEpoch = batchInEpoch == BatchesPerEpoch - 1;
            }

            if (++_claimSlot == entry.Slots)
            {
                _claimSlot = 0;
                _claimStep++;
            }

            _inFlight++;
            return true;
        }
    }

    /// <summary>Fills one place of a batch; false when, in evaluation, its image is bad and skipped.</summary>
    private bool Fill(ImageRenderer renderer, ImageOrder order, Batch batch, int slot)
    {
        uint epoch = (uint)batch.Epoch;
        int position = (int)(batch.Step % BatchesPerEpoch) * _stepImages + _options.Share.PlaceOf(slot, _options.BatchSize);
        if (_options.Shift is { } shift && shift.Epoch == batch.Epoch)
        {
            position += shift.Images;
        }

        Span<byte> pixels = batch.PixelArray.AsSpan(slot * batch.ImageBytes, batch.ImageBytes);
        for (int tries = 0; tries < _dataset.Count; tries++)
        {
            int place = (position + tries) % _dataset.Count;
            int index = order.At(epoch, place);
            if (!_badImages.TryGetValue(index, out ImageStatus status))
            {
                status = renderer.Render(index, epoch, (uint)position, pixels);
            }

            if (status == ImageStatus.Ok)
            {
                batch.LabelArray[slot] = _dataset.Label(index);
                batch.IndexArray[slot] = index;
                return true;
            }

            if (_options.OnBadImage == BadImagePolicy.Fail)
            {
                throw new UserErrorException(
                    $"image '{_dataset.Name(index)}' in '{_dataset.Source}' {Describe(status)}; replace it, or let bad images be skipped.");
            }

            _badImages.TryAdd(index, status);
            if (_options.Augmentation is null)
            {
                return false;
            }
        }

        throw new UserErrorException($"none of the {_dataset.Count} images of '{_dataset.Source}' can be decoded.");
    }

    private void Complete(Entry entry, int slot, bool good, ExceptionDispatchInfo? error)
    {
        lock (_gate)
        {
            if (error is not null && slot < entry.ErrorSlot)
            {
                (entry.Error, entry.ErrorSlot) = (error, slot);
            }

            if (!good)
            {
                entry.Batch.IndexArray[slot] = -1;
            }

            _inFlight--;
            _lastFinish = Stopwatch.GetTimestamp();
            if (--entry.Pending == 0)
            {
                entry.Finish();
                Monitor.PulseAll(_gate);
            }
            else if (_paused && _inFlight == 0)
            {
                Monitor.PulseAll(_gate);
            }
        }
    }

    private static string Describe(ImageStatus status) => status switch
    {
        ImageStatus.Empty => "is empty",
        ImageStatus.NotAnImage => "is of no known image format",
        ImageStatus.Truncated => "is cut short",
        ImageStatus.TooLarge => "is too large",
        _ => "is corrupt",
    };

    /// <summary>A batch being made: how much is missing, what went wrong.</summary>
    private sealed class Entry(Batch batch)
    {
        public Batch Batch { get; } = batch;

        public long Step { get; set; } = -1;

        public int Slots { get; private set; }

        public int Pending { get; set; }

        public ExceptionDispatchInfo? Error { get; set; }

        public int ErrorSlot { get; set; }

        public bool IsReady(long step) => Step == step && Pending == 0;

        public void Begin(long step, int slots)
        {
            Step = Batch.Step = step;
            Slots = Pending = slots;
            Error = null;
            ErrorSlot = int.MaxValue;
        }

        /// <summary>Closes the gaps that skipped images left, and clears what lies behind.</summary>
        public void Finish()
        {
            int count = 0;
            for (int slot = 0; slot < Slots; slot++)
            {
                if (Batch.IndexArray[slot] >= 0)
                {
                    if (slot != count)
                    {
                        Batch.PixelArray.AsSpan(slot * Batch.ImageBytes, Batch.ImageBytes).CopyTo(Batch.PixelArray.AsSpan(count * Batch.ImageBytes));
                        Batch.LabelArray[count] = Batch.LabelArray[slot];
                        Batch.IndexArray[count] = Batch.IndexArray[slot];
                    }

                    count++;
                }
            }

            Batch.Count = count;
            Batch.PixelArray.AsSpan(count * Batch.ImageBytes).Clear();
            Batch.LabelArray.AsSpan(count).Clear();
            Batch.IndexArray.AsSpan(count).Fill(-1);
        }
    }
}
